"""Write the files of an experiment into its MLflow run."""

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddpm import files, tables
from ddpm.params import Params, Tracking
from lab.experiment import identity, journal, results
from lab.experiment.dvcfile import flatten
from lab.tracking import store
from lab.tracking.run import EXTRACTOR, MODEL, Run

_LOGGED_MODEL = "ddpm.logged_model"
_IDENTIFYING = ("train_digest", "model_digest")  # keys of every protocol
_TAGS = {  # and their keys in the protocol
    MODEL: "model_digest",
    EXTRACTOR: "extractor_digest",
    "extractor": "extractor",
    "network_parameters": "network_parameters",
}


@dataclass(frozen=True)
class Published:
    """A run that has been written."""

    name: str
    address: str  # of MLflow's page with all runs; for a local store, as `ddpm ui` serves it


def publish(params: Params, folder: Path = Path(), name: str | None = None, commit: str = "") -> Published | None:
    """Write the experiment in `folder` into its run; return None if that failed.

    `name` and `commit` are those of an experiment that DVC keeps; without them, the current experiment is published.
    A failure is a warning, because `ddpm publish` can repeat it.
    """
    try:
        run = _publish(params.tracking, _results(folder), folder, name, commit)
        return Published(run.name, store.address(params.tracking, run.experiment_id))
    except Exception as error:
        store.warn(error)
        return None


@dataclass(frozen=True)
class _Results:
    """What an experiment has measured."""

    metrics: Mapping[str, float]  # by their dotted keys
    protocol: Mapping[str, Any]
    points: Sequence[Mapping[str, float]]  # of the loss curve and of the snapshots


def _publish(settings: Tracking, found: _Results, folder: Path, name: str | None, commit: str) -> Run:
    protocol, points = found.protocol, found.points
    fingerprint = identity.fingerprint(protocol["train_digest"], folder)
    history = journal.tags(identity.MEASURED, folder)
    seconds = {stage: float(history.get(f"seconds.{stage}", 0)) for stage in identity.MEASURED}
    duration = sum(seconds.values())
    run = Run.open(settings, fingerprint, name, folder=folder, age=duration)
    if run.has_different_results(found.metrics, protocol["model_digest"]):
        run.client.delete_run(run.id)
        run = Run.open(settings, fingerprint, name or run.name, folder=folder, age=duration)
    # The origin that the training logged stays: this may be another machine, or a later commit.
    origin = {key: value for key, value in identity.origin(name, commit).items() if key not in run.tags}
    run.describe(identity.params(folder), origin | history | _described(protocol))
    last = max((point["step"] for point in points), default=1)
    # A training that MLflow has not seen: its steps took equal times. Without a record of its duration they took none.
    run.log(points, lambda step: run.start + seconds["train"] * step / last)
    run.log([{"step": 0, **found.metrics}], lambda _: run.start + duration)
    _log_files(run, folder)
    if settings.log_model:
        _log_model(run, folder / "models/model.safetensors", protocol["model_digest"])
    run.finish(duration)
    return run


def _described(protocol: Mapping[str, Any]) -> dict[str, str]:
    """The tags from the protocol; those of earlier versions have fewer keys."""
    described = {tag: str(protocol[key]) for tag, key in _TAGS.items() if key in protocol}
    warnings = protocol.get("warnings", [])
    return described | ({"warnings": "\n".join(warnings)} if warnings else {})


def _results(folder: Path) -> _Results:
    """Read the results in a folder. Earlier versions kept the protocol among the metrics, and had no snapshots."""
    path = folder / "reports/metrics.json"
    metrics = results.read(path)
    protocol = metrics.pop("protocol", None)
    results.check_metrics(path, metrics)
    protocol = protocol or results.read(folder / "reports/protocol.json", _IDENTIFYING)
    points = tables.read_points(folder / "reports/train.csv", ("step",))
    snapshots = folder / "reports/snapshots.csv"
    measured = tables.read_points(snapshots, ("step", "fid", "is")) if snapshots.exists() else []
    points += [{"step": one["step"], "snapshot.fid": one["fid"], "snapshot.is": one["is"]} for one in measured]
    return _Results(flatten(metrics), protocol, points)


def _log_files(run: Run, folder: Path) -> None:
    run.client.log_artifact(run.id, str(folder / "params.yaml"))
    run.client.log_artifacts(run.id, str(folder / "reports"), "reports")
    if (folder / "dvc.lock").exists():
        measured = {"schema": "2.0", "stages": identity.lock(folder)}
        run.client.log_text(run.id, yaml.safe_dump(measured, sort_keys=False), "dvc.lock")


def _log_model(run: Run, path: Path, digest: str) -> None:
    """Log the model file and an MLflow model with it, once, because the bytes of an MLflow model differ each time."""
    if run.tags.get(_LOGGED_MODEL) == digest or not path.exists() or files.read_tensors(path).digest != digest:
        return
    run.client.log_artifact(run.id, str(path), "models")
    with tempfile.TemporaryDirectory() as folder:
        _package(path, Path(folder, "model"))
        run.client.log_artifacts(run.id, f"{folder}/model", "model")
    run.client.set_tag(run.id, _LOGGED_MODEL, digest)


def _package(path: Path, folder: Path) -> None:
    """Write an MLflow model: the weights, the code that samples them, and its requirements."""
    from mlflow import pyfunc

    here = Path(__file__)
    required = ("torch", "numpy", "pydantic", "safetensors", "mlflow")
    pyfunc.save_model(
        folder,
        python_model=here.with_name("served.py"),
        artifacts={"model": str(path)},
        code_paths=[str(here.parents[2] / "ddpm")],
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in required],
        signature=False,  # a signature would let unknown keys pass, with a warning
        input_example={"count": 4, "steps": 20, "seed": 0, "label": None},
    )
