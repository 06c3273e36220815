"""A training in MLflow while it runs, written by a thread of its own."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddpm.network.modelfile import Model
from ddpm.params import Params, Tracking
from ddpm.sampling import pictures
from lab.experiment import identity, journal
from lab.tracking import store
from lab.tracking.run import Run

_PATIENCE = 10.0  # seconds that a training waits for MLflow at its end
_INTERVAL = 10.0  # seconds between two looks at the machine


class Live:
    """A training's run, written by a thread of its own so that training never waits for it."""

    def __init__(self, settings: Tracking, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Open the run in the background."""
        self._local = store.uri(settings).startswith("sqlite:")
        self._opened = threading.Event()
        self._queue: queue.Queue[Callable[[Run], None] | None] = queue.Queue()
        self._status = "RUNNING"
        self._thread = threading.Thread(target=self._work, args=(settings, fingerprint, tags), daemon=True)
        self._thread.start()

    def log(self, point: Mapping[str, float], images_per_second: float) -> None:
        """A point of the loss curve, and the speed it was reached at."""
        step = point["step"]
        self._queue.put(lambda run: run.points([point]))
        self._queue.put(lambda run: run.speed(step, images_per_second))

    def preview(self, step: int, model: Model) -> None:
        """Draw a few samples of the model and log them as a picture, named after the step."""
        picture = pictures.preview(model)
        self._queue.put(lambda run: run.client.log_image(run.id, picture, f"previews/{step:08d}.png"))

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
                run = Run.open(settings, fingerprint)
            finally:
                self._opened.set()
            run.describe(Path(), tags)
            run.status("RUNNING")
            self._perform(run)
            run.status(self._status)
        except Exception as error:  # whatever tracking meets, training goes on
            store.warn(error)

    def _perform(self, run: Run) -> None:
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

    def __init__(self, run: Run) -> None:
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
    run = Live(params.tracking, identity.fingerprint(train_digest), identity.origin() | journal.machine())
    try:
        yield run
    except BaseException:
        run.close("FAILED")
        raise
    run.close("RUNNING")  # until `publish` has the results
