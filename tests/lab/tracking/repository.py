"""A repository whose stages have run, with made-up results, and what its store of MLflow holds."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ddpm import tables
from ddpm.network.modelfile import Model
from ddpm.params import Params, check
from lab.tracking.live import live

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[3]
CPU = "system/cpu_utilization_percentage"
POINTS = [{"step": 50 * n, "loss": 1 / n, "gradient_norm": 2 / n, "learning_rate": 0.001} for n in range(1, 4)]
SNAPSHOTS = [{"step": 50 * n, "fid": 5 / n, "is": 2.0 + n} for n in range(1, 3)]
REPORTS = ("train.csv", "snapshots.csv", "metrics.json", "protocol.json", "report.md")
DIGEST = "d" * 64
METRICS = {
    "classifier": {"fid": 1.25, "fid_floor": 0.5},
    "likelihood": {"bits_per_dim": 3.5, "rate": 1.5},
    "snapshots": {"best_fid": 2.5, "best_step": 100},
}
PROTOCOL = {
    "train_digest": DIGEST,
    "model_digest": "m" * 64,
    "extractor": "classifier",
    "extractor_digest": "e" * 64,
    "network_parameters": 1234,
    "samples": 64,
    "data_pinned": True,
    "warnings": [],
    "sample": {"sampler": "ddim", "eta": 0.5},
}


def repository(folder: Path) -> Path:
    """Fill a folder with the code, the settings and the results of an experiment."""
    for name in ("ddpm", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    tables.write_points(folder / "reports/train.csv", POINTS, ("step", "loss", "gradient_norm", "learning_rate"))
    tables.write_points(folder / "reports/snapshots.csv", SNAPSHOTS, ("step", "fid", "is"))
    (folder / "reports/metrics.json").write_text(json.dumps(METRICS))
    (folder / "reports/protocol.json").write_text(json.dumps(PROTOCOL))
    (folder / "reports/report.md").write_text("# Report\n")
    return folder


def params(**changed: Any) -> Params:
    """The committed params.yaml, with changes of the section tracking."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["tracking"] |= {"uri": None, "experiment": "ddpm"} | changed
    return check(values)


def follow(points: list[dict[str, float]], model: Model | None = None, speed: float = 100.0, **tracking: Any) -> None:
    """Log a training as the stage does: the points, and a preview of the model at step 150."""
    with live(params(**tracking), DIGEST) as run:
        for point in points:
            run.log(point, images_per_second=speed)
        if model:
            run.preview(150, model)


def client(root: Path) -> "MlflowClient":
    """A client of the repository's own store."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs(root: Path) -> list["Run"]:
    """The runs of the experiment ddpm, newest first."""
    found = client(root).get_experiment_by_name("ddpm")
    return list(client(root).search_runs([found.experiment_id])) if found else []


def history(root: Path, key: str) -> list[tuple[int, float]]:
    """Steps and values of a metric of the only run."""
    [run] = runs(root)
    return sorted((point.step, point.value) for point in client(root).get_metric_history(run.info.run_id, key))


def artifacts(root: Path) -> set[str]:
    """The paths of all artifacts inside their runs."""
    folder = root / "mlartifacts"
    return {path.relative_to(folder).as_posix().split("/", 2)[2] for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a text file."""
    path.write_text(change(path.read_text()))


def wait(condition: Callable[[], bool]) -> None:
    """Wait at most ten seconds until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
