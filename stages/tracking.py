"""MLflow: one run per experiment, found or created by the experiment's fingerprint.

Files are the truth and MLflow a projection of them. `live` shows a training while it runs, best-effort; `publish`
makes the run complete from the files, and doing it again adds nothing: every point carries a timestamp that follows
from the run's start and its step, so a repeated one is the same point.
"""

import importlib.metadata
import json
import logging
import math
import os
import queue
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from PIL import Image

from ddpm.params import Params, Tracking
from ddpm.reporting import curve
from ddpm.reporting.contents import flatten
from stages import experiment, journal, pipeline

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FINGERPRINT = "ddpm.fingerprint"
MODEL = "ddpm.model"
EXTRACTOR = "ddpm.extractor"
_ARTIFACTS = ("params.yaml", "reports")
_ARTIFACTS_FOLDER = "mlartifacts"
_PATIENCE = 10.0  # seconds that a training waits for MLflow at its end
_INTERVAL = 10.0  # seconds between two looks at the machine
_BATCH = 1000  # metrics that MLflow takes in one call
_DATABASE = "mlflow.db"
_LOGGED = "ddpm.logged_model"
_PAGE = 1000  # runs that MLflow tells in one call
_SPEED = "images_per_second"


class Live:
    """A training's run, written by a thread of its own so that training never waits for it."""

    def __init__(self, settings: Tracking, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Open the run in the background."""
        self._local = store_uri(settings).startswith("sqlite:")
        self._opened = threading.Event()
        self._queue: queue.Queue[Callable[[_Run], None] | None] = queue.Queue()
        self._status = "RUNNING"
        self._thread = threading.Thread(target=self._work, args=(settings, fingerprint, tags), daemon=True)
        self._thread.start()

    def log(self, point: Mapping[str, float], images_per_second: float) -> None:
        """A point of the loss curve, and the speed it was reached at."""
        step = point["step"]
        self._queue.put(lambda run: run.points([point]))
        self._queue.put(lambda run: run.speed(step, images_per_second))

    def image(self, name: str, picture: Image.Image) -> None:
        """A picture, under a fixed name."""
        self._queue.put(lambda run: run.client.log_image(run.id, picture, name))

    def close(self, status: str) -> None:
        """Set the run's status and wait a while for what is still to be written."""
        self._status = status
        self._queue.put(None)
        if self._local:
            self._opened.wait()  # a local database that is left half made stays broken, and making it takes seconds
        self._thread.join(_PATIENCE)

    def _work(self, settings: Tracking, fingerprint: str, tags: Mapping[str, str]) -> None:
        try:
            try:
                run = _Run.open(settings, fingerprint)
            finally:
                self._opened.set()
            run.describe(Path(), tags)
            run.status("RUNNING")
            self._perform(run)
            run.status(self._status)
        except Exception as error:  # whatever tracking meets, training goes on
            _warn(error)

    def _perform(self, run: "_Run") -> None:
        """What the training asks for, until it ends; meanwhile and at the end, what the machine does."""
        machine, due = _Machine(run), time.monotonic() + _INTERVAL
        while True:
            try:
                task = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                machine.log()
                due += _INTERVAL
                continue
            if task is None:
                return machine.log()
            task(run)


class _Machine:
    """Use of processors, memory, disk and network while training, as MLflow itself samples and names it."""

    def __init__(self, run: "_Run") -> None:
        """Continue after what an earlier attempt has logged."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        uri = run.client.tracking_uri
        self._monitor: Any = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=uri)  # not started
        self._monitor.collect_metrics()
        for part in self._monitor.monitors:  # the first look at a processor has nothing to compare with
            part.clear_metrics()

    def log(self) -> None:
        """One sample."""
        self._monitor.collect_metrics()
        self._monitor.publish_metrics(self._monitor.aggregate_metrics())
        self._monitor.mlflow_logger.flush()


@contextmanager
def live(params: Params, train_digest: str) -> Iterator[Live]:
    """Follow a training in MLflow. A killed one stays RUNNING until it is resumed or published."""
    run = Live(params.tracking, experiment.fingerprint(train_digest), experiment.origin() | journal.machine())
    try:
        yield run
    except BaseException:
        run.close("FAILED")
        raise
    run.close("RUNNING")  # until `publish` has the results


def publish(params: Params, folder: Path = Path(), name: str | None = None, commit: str = "") -> bool:
    """Write everything that the files in `folder` tell of an experiment into its run; True when that worked.

    `name` and `commit` are those of another experiment than the one here. Tracking that fails is a warning:
    `ddpm publish` can repeat it.
    """
    try:
        _publish(params.tracking, folder, name, commit)
    except Exception as error:
        _warn(error)
        return False
    return True


def _publish(settings: Tracking, folder: Path, name: str | None, commit: str) -> None:
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    fingerprint = experiment.fingerprint(metrics["protocol"]["train_digest"], folder)
    measured = flatten({key: part for key, part in metrics.items() if key != "protocol"})
    run = _Run.open(settings, fingerprint, name)
    if run.tells_otherwise(measured, metrics["protocol"]["model_digest"]):
        run.client.delete_run(run.id)
        run = _Run.open(settings, fingerprint, name or run.name)
    # What the training itself has said of its origin stays: this may be another machine, and a later commit.
    origin = {key: value for key, value in experiment.origin(name, commit).items() if key not in run.tags}
    run.describe(folder, origin | journal.tags(experiment.MEASURED, folder) | _restored())
    run.points(curve.read(folder / "reports/train.csv"))
    snapshots = folder / "reports/snapshots.csv"
    if snapshots.exists():  # experiments of earlier versions have none
        run.points(
            [{"step": p["step"], "snapshot.fid": p["fid"], "snapshot.is": p["is"]} for p in curve.read(snapshots)]
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
        run.client.log_text(run.id, experiment.lock(folder), "dvc.lock")
    if settings.log_model:
        _log_model(run, folder / "models/model.safetensors", metrics["protocol"]["model_digest"])
    run.status("FINISHED")


def _log_model(run: "_Run", path: Path, digest: str) -> None:
    """The model file, and a model of MLflow's around it (stages/served.py): once, as no two of those are the same."""
    from ddpm import tensorfile  # and with it torch, which readers of runs do not wait for

    if run.tags.get(_LOGGED) == digest or not path.exists() or tensorfile.read_metadata(path)["digest"] != digest:
        return
    run.client.log_artifact(run.id, str(path), "models")
    with tempfile.TemporaryDirectory() as folder:
        _package(path, Path(folder))
        run.client.log_artifacts(run.id, f"{folder}/model", "model")
    run.client.set_tag(run.id, _LOGGED, digest)


def _package(path: Path, folder: Path) -> None:
    """Write folder/model: the weights, the code that samples them, and what that needs."""
    from mlflow import pyfunc

    sources, code = Path(__file__).parent, folder / "stages"
    code.mkdir()
    for name in ("__init__.py", "options.py"):
        shutil.copy(sources / name, code)
    needed = ("torch", "numpy", "pydantic", "safetensors", "mlflow")
    pyfunc.save_model(
        folder / "model",
        python_model=sources / "served.py",
        artifacts={"model": str(path)},
        code_paths=[str(sources.parent / "ddpm"), str(code)],
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in needed],
        signature=False,  # one would let unknown keys pass, with a warning
        input_example={"count": 4, "steps": 20, "seed": 0, "label": None},
    )


def store_uri(settings: Tracking) -> str:
    """Where MLflow keeps its records: the setting, else the environment, else a file in the repository.

    A relative path is the repository's, also in DVC's temporary copies of it.
    """
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_DATABASE}"
    path = uri.removeprefix("sqlite:///")
    return uri if path == uri else f"sqlite:///{pipeline.ROOT / path}"


def connect(settings: Tracking) -> "MlflowClient":
    """Import MLflow and make its database if there is none: both take seconds."""
    with _one_at_a_time():
        return _client(store_uri(settings))


def runs(client: "MlflowClient", group: str) -> Iterator["Run"]:
    """All runs of an MLflow experiment but the deleted, newest first."""
    found = client.get_experiment_by_name(group)
    token: str | None = ""
    while found is not None and token is not None:
        page = client.search_runs([found.experiment_id], max_results=_PAGE, page_token=token or None)
        yield from page
        token = page.token or None


class _Run:
    """An MLflow run, and what is written to it."""

    def __init__(self, client: "MlflowClient", run: "Run") -> None:
        self.client = client
        self.id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.tags: dict[str, str] = run.data.tags
        self._metrics: dict[str, float] = run.data.metrics
        self._start: int = run.info.start_time
        self._timed: int | None = None  # the last step whose speed an earlier attempt has written

    @classmethod
    def open(cls, settings: Tracking, fingerprint: str, name: str | None = None) -> "_Run":
        """Find the experiment's run or create it."""
        with _one_at_a_time():
            client = _client(store_uri(settings))
            group = _experiment(client, settings.experiment)
            found = client.search_runs([group], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
            run = found[0] if found else client.create_run(group, tags={FINGERPRINT: fingerprint})
        name = name or os.environ.get("DVC_EXP_NAME") or (run.info.run_name if found else fingerprint[:8])
        client.update_run(run.info.run_id, name=name)
        return cls(client, run)

    def describe(self, folder: Path, tags: Mapping[str, str]) -> None:
        """Parameters, and tags that say where the experiment comes from."""
        from mlflow.entities import Param, RunTag

        params = [
            Param(key, value if isinstance(value, str) else json.dumps(value))
            for key, value in experiment.params(folder).items()
        ]
        for first in range(0, len(params), 100):  # MLflow's limit
            self.client.log_batch(self.id, params=params[first : first + 100])
        self.client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def points(self, points: Sequence[Mapping[str, float]]) -> None:
        """Metrics at their steps."""
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, self._start + int(point["step"]), int(point["step"]))
            for point in points
            for key, value in point.items()
            if key != "step"
        ]
        for first in range(0, len(metrics), _BATCH):
            self.client.log_batch(self.id, metrics=metrics[first : first + _BATCH])

    def tells_otherwise(self, measured: Mapping[str, float], model_digest: str) -> bool:
        """Whether the run has other results of the same experiment, as another machine's rounding gives them.

        MLflow takes no point back, and of two values at one time it shows the larger.
        """
        known = [(self._metrics[key], value) for key, value in measured.items() if key in self._metrics]
        return self.tags.get(MODEL, model_digest) != model_digest or any(
            told != _stored(value) and not math.isnan(value) for told, value in known
        )

    def speed(self, step: float, images_per_second: float) -> None:
        """How fast training was, at a step that no earlier attempt has reached: it is never twice the same."""
        if self._timed is None:
            history = self.client.get_metric_history(self.id, _SPEED)
            self._timed = max((point.step for point in history), default=-1)
        if step > self._timed:
            self.points([{"step": step, _SPEED: images_per_second}])

    def status(self, status: str) -> None:
        """RUNNING, FINISHED or FAILED."""
        if status == "RUNNING":
            self.client.update_run(self.id, status)
        else:
            self.client.set_terminated(self.id, status)


def _one_at_a_time() -> FileLock:
    """The lock of a local store: two processes that create the database together can leave it broken."""
    return FileLock(pipeline.ROOT / f"{_DATABASE}.lock")


def _client(uri: str) -> "MlflowClient":
    # MLflow's own defaults retry a dead server for minutes; with these the first call that fails takes _PATIENCE.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # it would complain of a GPU every few seconds
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        # Making the tables takes seconds, and a database that a kill leaves half made stays broken.
        aside = path.with_name(f"{path.name}.new")
        aside.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{aside}")
        aside.replace(path)
    return MlflowClient(uri)


def _experiment(client: "MlflowClient", name: str) -> str:
    """The id of the MLflow experiment. A local one keeps its artifacts in the repository, whoever creates it."""
    found = client.get_experiment_by_name(name)
    here = (pipeline.ROOT / _ARTIFACTS_FOLDER).resolve().as_uri()
    if found is None:
        local = client.tracking_uri.startswith("sqlite:")
        return str(client.create_experiment(name, artifact_location=here if local else None))
    there = found.artifact_location
    own = client.tracking_uri == f"sqlite:///{pipeline.ROOT / _DATABASE}"
    if own and there.endswith(f"/{_ARTIFACTS_FOLDER}") and there != here:
        _follow(there, here)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _follow(there: str, here: str) -> None:
    """Tell the repository's own store that its artifacts have moved with it; MLflow itself has no way to."""
    with closing(sqlite3.connect(pipeline.ROOT / _DATABASE)) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (there, here))


def _restored() -> dict[str, str]:
    """Of the DVC around this process, if there is one: which stages it found in its cache."""
    stages = journal.restored(experiment.MEASURED)
    return {} if stages is None else {"dvc.restored": " ".join(stages) or "none"}


def _warn(error: Exception) -> None:
    print(
        f"MLflow could not be written ({reason(error)}); `ddpm publish` fills it in later", file=sys.stderr, flush=True
    )


def reason(error: Exception) -> str:
    """What went wrong, in a line: MLflow's own errors go on for many."""
    return masked(str(error).splitlines()[0] if str(error) else type(error).__name__)


def masked(text: str) -> str:
    """A text without the names and passwords of its addresses."""
    return re.sub(r"//[^/@\s]*@", "//...@", text)


def _stored(value: float) -> float:
    """A metric as a database of MLflow gives it back: without infinities."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))
