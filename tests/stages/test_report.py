"""Stage report on the metrics and curves of a tiny model."""

import shutil
from pathlib import Path

import yaml

from ddpm import params, tables
from stages.report import report, whole
from tests.imports import ROOT
from tests.stages.conftest import Evaluated, changed


def test_the_report_shows_the_snapshot_curve_the_best_snapshot_and_the_likelihood(
    evaluated: Evaluated, folder: Path, tmp_path: Path
) -> None:
    settings = changed(evaluate={**changed().evaluate.model_dump(), "likelihood_images": 2})
    metrics = evaluated(settings)
    (tmp_path / "protocol.json").rename(tmp_path / "measured.json")
    point = {"step": 7, "loss": 0.5, "gradient_norm": 1.5, "learning_rate": 0.1}
    tables.write_points(tmp_path / "train.csv", [point, {**point, "step": 200}], list(point))
    for name in ("samples.png", "real.png", "denoising.png", "trajectory.gif", "noising.png"):
        shutil.copy(folder / name, tmp_path)
    report(settings, protocol=tmp_path / "measured.json", reports=tmp_path, defaults=ROOT / "recipes/default.yaml")
    page = (tmp_path / "report.md").read_text()
    assert (tmp_path / "protocol.json").read_text() == (tmp_path / "measured.json").read_text()
    assert f"| `likelihood.bits_per_dim` | {metrics['likelihood']['bits_per_dim']:.4g} |" in page
    assert f"The snapshot of step {metrics['snapshots']['best_step']:.0f} has the smallest FID" in page
    with_snapshots = (tmp_path / "loss.png").read_bytes()
    tables.write_points(tmp_path / "snapshots.csv", [], ("step", "fid", "is"))
    report(settings, protocol=tmp_path / "measured.json", reports=tmp_path, defaults=ROOT / "recipes/default.yaml")
    assert (tmp_path / "loss.png").read_bytes() != with_snapshots


def test_reported_parameters_have_the_default_device_and_data_root() -> None:
    defaults = yaml.safe_load((ROOT / "recipes/default.yaml").read_text())
    here = changed(runtime={"device": "cpu", "threads": 1, "data_root": "elsewhere", "log_every": 7})
    shown = whole(here, defaults)
    assert shown["runtime"] == {**defaults["runtime"], "threads": 1, "log_every": 7, "deterministic": False}
    assert {key: shown[key] for key in ("network", "sample")} == {
        "network": here.network.model_dump(),
        "sample": here.sample.model_dump(),
    }
    assert params.check(shown).network == here.network
