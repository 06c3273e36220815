"""Reports for the tests of the pages, and the plots in them."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

from ddpm.alternatives import in_use
from ddpm.tables import Share
from lab.pages.contents import CAPTIONS, Report
from tests.imports import ROOT

DIGEST = "0123456789abcdef" * 4
PROTOCOL: dict[str, Any] = {
    "extractor": "classifier",
    "extractor_digest": DIGEST,
    "network_parameters": 701345,
    "matched": 270,
    "is_splits": 10,
    "is_real_images": 1500,
    "neighbours_images": 1000,
    "likelihood_images": 64,
    "loss_images": 270,
    "loss_draws": 2000,
    "data": "digits",
    "data_pinned": True,
    "train_digest": DIGEST[::-1],
    "test_digest": DIGEST,
    "model_digest": DIGEST,
    "samples_digest": DIGEST,
    "sample": {"steps": 50, "eta": 0.0},
    "warnings": [],
}
METRICS: dict[str, Any] = {
    "classifier": {"fid": 1.93557, "fid_floor": 0.28154, "is": 5.54, "is_real": 7.366, "unheard_of": 3.0},
    "neighbours": {"smallest": 20.5437, "median": 34.5, "median_of_test": 32.5},
}
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "recipes/default.yaml").read_text(encoding="utf-8"))
REPORT = Report(
    metrics=METRICS,
    protocol=PROTOCOL,
    points=[
        {"step": 50, "loss": 0.73832, "gradient_norm": 3.5, "learning_rate": 0.0005},
        {"step": 1500, "loss": 0.080841, "gradient_norm": 0.2, "learning_rate": 0.001},
    ],
    snapshots=[],
    bound=[],
    shares=[],
    params=in_use(DEFAULTS),
    defaults=DEFAULTS,
    pictures={},
    fingerprint=DIGEST,
    code=DIGEST,
)
BOUND = {"bits_per_dim": 3.75123, "rate": 1.78, "distortion": 1.97, "prior": 0.001}
REPORTED = {
    "source": "Somebody 2020, Table 1",
    "metrics": {"classifier.fid": 3.17, "likelihood.bits_per_dim": 3.7, "inception.is": 9.46},
}


def changed(report: Report, section: str, **values: Any) -> Report:
    """The report with other parameters in a section."""
    return replace(report, params={**report.params, section: {**report.params[section], **values}})


def measured(report: Report, **parts: Any) -> Report:
    """The report with other parts of the metrics."""
    return replace(report, metrics={**report.metrics, **parts})


def under(report: Report, **entries: Any) -> Report:
    """The report with other entries of the protocol."""
    return replace(report, protocol={**report.protocol, **entries})


def rich(folder: Path, name: str = "one") -> Report:
    """A report with everything that it can have. `name` is in all places that the user's data names."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for index, key in enumerate(CAPTIONS):
        path = folder / f"{key}.{'gif' if key == 'trajectory' else 'png'}"
        frames = [Image.fromarray(np.full((90, 700), 30 * index + 20 * frame, np.uint8)) for frame in range(2)]
        frames[0].save(path, **({"save_all": True, "append_images": frames[1:]} if key == "trajectory" else {}))
        pictures[key] = path
    agreement = {**METRICS["classifier"], "class_distance": 0.0304, "label_agreement": 0.97}
    report = measured(
        REPORT,
        classifier=agreement,
        likelihood=BOUND,
        loss={"train": 0.0768, "test": 0.0788},
        snapshots={"best_fid": 1.25, "best_step": 900.0},
    )
    report = under(report, data=name, warnings=[f"few images of {name}"])
    report = changed(changed(report, "data", source="folder", path=name), "network", conditional=True)
    return replace(
        report,
        snapshots=[{"step": 500, "fid": 7.5, "is": 8.0}, {"step": 900, "fid": 1.25, "is": 8.5}],
        bound=[{"t": t, "bits_per_dim": 1 / t**2, "x_0_error": t / 9} for t in range(1, 10)],
        shares=[Share(name, 0.5, 0.25, 0.97), Share("two", 0.5, 0.75)],
        params={**report.params, "reported": REPORTED | {"source": name}},
        pictures=pictures,
    )


def svg_texts(plot: str) -> list[str]:
    """The texts in a plot."""
    return [element.text or "" for element in ElementTree.fromstring(plot).iter("{http://www.w3.org/2000/svg}text")]


def svgs(page: str) -> list[str]:
    """The plots in a page."""
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)
