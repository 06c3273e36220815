"""An experiment's files, written into its MLflow run."""

import importlib.metadata
import json
import tempfile
from pathlib import Path

from ddpm import tables
from ddpm.params import Params, Tracking
from lab.experiment import identity, journal
from lab.experiment.dvcfile import flatten
from lab.tracking import store
from lab.tracking.run import EXTRACTOR, MODEL, Run

_ARTIFACTS = ("params.yaml", "reports")
_LOGGED = "ddpm.logged_model"


def publish(params: Params, folder: Path = Path(), name: str | None = None, commit: str = "") -> bool:
    """Write everything that the files in `folder` tell of an experiment into its run; True when that worked.

    `name` and `commit` are those of another experiment than the one here. Tracking that fails is a warning:
    `ddpm publish` can repeat it.
    """
    try:
        _publish(params.tracking, folder, name, commit)
    except Exception as error:
        store.warn(error)
        return False
    return True


def _publish(settings: Tracking, folder: Path, name: str | None, commit: str) -> None:
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    fingerprint = identity.fingerprint(metrics["protocol"]["train_digest"], folder)
    measured = flatten({key: part for key, part in metrics.items() if key != "protocol"})
    run = Run.open(settings, fingerprint, name)
    if run.tells_otherwise(measured, metrics["protocol"]["model_digest"]):
        run.client.delete_run(run.id)
        run = Run.open(settings, fingerprint, name or run.name)
    # What the training itself has said of its origin stays: this may be another machine, and a later commit.
    origin = {key: value for key, value in identity.origin(name, commit).items() if key not in run.tags}
    run.describe(folder, origin | journal.tags(identity.MEASURED, folder))
    run.points(tables.read_points(folder / "reports/train.csv"))
    snapshots = folder / "reports/snapshots.csv"
    if snapshots.exists():  # experiments of earlier versions have none
        run.points(
            [
                {"step": p["step"], "snapshot.fid": p["fid"], "snapshot.is": p["is"]}
                for p in tables.read_points(snapshots)
            ]
        )
    run.points([{"step": 0, **measured}])
    run.client.set_tag(run.id, MODEL, metrics["protocol"]["model_digest"])
    run.client.set_tag(run.id, EXTRACTOR, metrics["protocol"]["extractor_digest"])
    for artifact in _ARTIFACTS:
        path = folder / artifact
        if path.is_dir():
            run.client.log_artifacts(run.id, str(path), artifact)
        else:
            run.client.log_artifact(run.id, str(path))
    if (folder / "dvc.lock").exists():
        run.client.log_text(run.id, identity.lock(folder), "dvc.lock")
    if settings.log_model:
        _log_model(run, folder / "models/model.safetensors", metrics["protocol"]["model_digest"])
    run.status("FINISHED")


def _log_model(run: Run, path: Path, digest: str) -> None:
    """Log the model file and an MLflow model around it, once: no two MLflow models have the same bytes."""
    from ddpm import files

    if run.tags.get(_LOGGED) == digest or not path.exists() or files.read_metadata(path)["digest"] != digest:
        return
    run.client.log_artifact(run.id, str(path), "models")
    with tempfile.TemporaryDirectory() as folder:
        _package(path, Path(folder))
        run.client.log_artifacts(run.id, f"{folder}/model", "model")
    run.client.set_tag(run.id, _LOGGED, digest)


def _package(path: Path, folder: Path) -> None:
    """Write folder/model: the weights, the code that samples them, and what that needs."""
    from mlflow import pyfunc

    here = Path(__file__)
    needed = ("torch", "numpy", "pydantic", "safetensors", "mlflow")
    pyfunc.save_model(
        folder / "model",
        python_model=here.with_name("served.py"),
        artifacts={"model": str(path)},
        code_paths=[str(here.parents[2] / "ddpm")],
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in needed],
        signature=False,  # one would let unknown keys pass, with a warning
        input_example={"count": 4, "steps": 20, "seed": 0, "label": None},
    )
