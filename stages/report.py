"""Stage report: the results of the other stages as a page for people and as a complete run in MLflow."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm import figures, files, tables
from ddpm.params import Params, load
from lab import stage
from lab.commands.publish import conclude
from lab.experiment import dvcfile, identity, results
from lab.pages import contents, markdown, page
from lab.pages.contents import Report, final_losses
from lab.tracking.publish import publish

RESULT_SECTIONS = ("data", "diffusion", "network", "train", "sample", "evaluate", "reported")
RESULT_RUNTIME = ("threads", "deterministic", "compile", "log_every")
PICTURES = ("samples.png", "real.png", "denoising.png", "trajectory.gif", "noising.png", "neighbours.png")


def report(params: Params, protocol: Path, reports: Path, defaults: Path) -> None:
    """Draw the loss curve, write both pages, and copy the protocol to where git keeps it.

    `reports` is the folder of the results and of the pages.
    """
    load(defaults)  # raises an error that names what is wrong with the recipe
    default_values = dvcfile.parsed(defaults)
    metrics = results.metrics(reports / "metrics.json")
    measured = results.read(protocol, contents.needed(metrics))
    points = tables.read_points(reports / "train.csv", ("step", "loss", "gradient_norm"))
    snapshots = tables.read_points(reports / "snapshots.csv", ("step", "fid", "is"))
    found = Report(
        metrics,
        measured,
        points,
        snapshots,
        tables.read_points(reports / "likelihood.csv", ("t", "bits_per_dim", "x_0_error")),
        tables.read_shares(reports / "classes.csv"),
        whole(params, default_values),
        default_values,
        {Path(name).stem: reports / name for name in (*PICTURES, "loss.png")},
        identity.fingerprint(measured["train_digest"]),
        identity.code_digest(),
    )
    figures.loss_curve(points, snapshots, final_losses(metrics), reports / "loss.png")
    files.write_text(reports / "protocol.json", protocol.read_text(encoding="utf-8"))
    files.write_text(reports / "report.md", markdown.page(found, reports))
    files.write_text(reports / "index.html", page.page(found))


def whole(params: Params, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A complete params.yaml: the settings that decide a result, and the default recipe's for all others."""
    here = params.model_dump()
    decisive = {section: here[section] for section in RESULT_SECTIONS}
    runtime = {key: here["runtime"][key] for key in RESULT_RUNTIME}
    return {**defaults, **decisive, "runtime": {**defaults["runtime"], **runtime}}


if __name__ == "__main__":
    stage.run(report)
    try:
        settings = load(dvcfile.PARAMS)
        published = publish(settings)
        if os.environ.get("DDPM_SUMMARY") != "later":  # `make repro` prints it at its end
            conclude(settings, published)
    except KeyboardInterrupt as interrupt:
        stage.end_interrupted("report", interrupt)
