"""Stage report: what the other stages wrote, as a page for people and a complete run in MLflow."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import json
import os
from pathlib import Path

import yaml

from ddpm import atomic
from ddpm.params import Params, load
from ddpm.reporting import curve, figures, markdown
from stages import tracking

RESULT_SECTIONS = ("data", "diffusion", "network", "train", "sample", "evaluate")


def report(
    params: Params,
    metrics: Path,
    points_file: Path,
    snapshots: Path,
    pictures: list[Path],
    defaults: Path,
    loss: Path,
    page: Path,
) -> None:
    """Draw the loss curve and write the page."""
    points = curve.read(points_file)
    figures.loss_curve(points, curve.read(snapshots), loss)
    captions = {
        "samples": "Samples",
        "denoising": "Samples appearing out of noise: x_t, and the x_0 that the network predicts from it",
        "noising": "Test images turning into noise, and the x_0 that the network predicts",
        "neighbours": "The samples nearest to a training image, with the distance in grey levels",
        "loss": "Loss and gradient norm while training, and FID of the snapshots if there are any",
    }
    shown = {captions[path.stem]: os.path.relpath(path, page.parent) for path in [*pictures, loss] if path.exists()}
    contents = markdown.Report(
        json.loads(metrics.read_text()),
        points,
        {name: getattr(params, name).model_dump() for name in RESULT_SECTIONS},
        {name: yaml.safe_load(defaults.read_text())[name] for name in RESULT_SECTIONS},
        shown,
    )
    atomic.write_text(page, markdown.page(contents))


if __name__ == "__main__":
    with pipeline.running("report"):
        shown = ("samples", "denoising", "noising", "neighbours")
        metrics, points_file, snapshots, *pictures, defaults, loss, page = pipeline.paths(
            "metrics", "curve", "snapshots", *shown, "defaults", "loss", "page"
        )
        params = load(pipeline.PARAMS)
        report(params, metrics, points_file, snapshots, pictures, defaults, loss, page)
    tracking.publish(params)
