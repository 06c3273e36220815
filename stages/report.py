"""Stage report: what the other stages wrote, as a page for people and a complete run in MLflow."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddpm import atomic
from ddpm.params import Params, load
from ddpm.reporting import curve, figures, markdown, page, shares
from ddpm.reporting.contents import Report
from stages import experiment, tracking

RESULT_SECTIONS = ("data", "diffusion", "network", "train", "sample", "evaluate", "published")
RESULT_RUNTIME = ("threads", "deterministic", "compile", "log_every")
PICTURES = ("samples", "real", "denoising", "trajectory", "noising", "neighbours")


@dataclass(frozen=True)
class Inputs:
    """What the other stages have written."""

    metrics: Path
    curve: Path
    snapshots: Path
    likelihood: Path
    classes: Path
    defaults: Path


def report(params: Params, inputs: Inputs, pictures: list[Path], loss: Path, text: Path, html: Path) -> None:
    """Draw the loss curve and write the pages."""
    metrics, defaults = json.loads(inputs.metrics.read_text()), yaml.safe_load(inputs.defaults.read_text())
    points, snapshots = curve.read(inputs.curve), curve.read(inputs.snapshots)
    figures.loss_curve(points, snapshots, loss)
    contents = Report(
        metrics,
        points,
        snapshots,
        curve.read(inputs.likelihood),
        shares.read(inputs.classes),
        whole(params, defaults),
        defaults,
        {path.stem: path for path in [*pictures, loss]},
        experiment.fingerprint(metrics["protocol"]["train_digest"]),
        experiment.code_digest(),
    )
    atomic.write_text(text, markdown.page(contents, text.parent))
    atomic.write_text(html, page.page(contents))


def whole(params: Params, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A params.yaml of what decides a result; where and how the work is done is as in the default recipe."""
    here = params.model_dump()
    decisive = {section: here[section] for section in RESULT_SECTIONS}
    runtime = {key: here["runtime"][key] for key in RESULT_RUNTIME}
    return {**defaults, **decisive, "runtime": {**defaults["runtime"], **runtime}}


if __name__ == "__main__":
    with pipeline.running("report"):
        names = ("metrics", "curve", "snapshots", "likelihood", "classes", "defaults")
        paths = pipeline.paths(*names, *PICTURES, "loss", "text", "page")
        inputs, pictures, outputs = paths[: len(names)], paths[len(names) : -3], paths[-3:]
        params = load(pipeline.PARAMS)
        report(params, Inputs(*inputs), pictures, *outputs)
    tracking.publish(params)
