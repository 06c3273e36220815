"""A training in MLflow while it runs, logged by a thread so that training never waits for MLflow."""

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

_PATIENCE = 10.0  # seconds that a training waits for a server at its end
_INTERVAL = 10.0  # seconds between two samples of the system metrics


class Live:
    """The run of a training, written by a thread."""

    def __init__(self, settings: Tracking, fingerprint: str, tags: Mapping[str, str]) -> None:
        """Start the thread, which opens the run."""
        # A local database has no timeout: creating it takes seconds, and its calls end by themselves.
        self._patience = None if store.uri(settings).startswith("sqlite:") else _PATIENCE
        self._params = identity.params()  # at once, like the fingerprint: params.yaml may change meanwhile
        self._tasks: queue.Queue[Callable[[Run], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(settings, fingerprint, tags), daemon=True)
        self._thread.start()

    def log(self, point: Mapping[str, float], images_per_second: float) -> None:
        """Log a point of the loss curve, and the speed at its step."""
        now = time.time()
        self._tasks.put(lambda run: run.log([point], lambda _: now))
        self._tasks.put(lambda run: run.log_speed(point["step"], images_per_second, now))

    def preview(self, step: int, model: Model) -> None:
        """Draw a few samples of the model and log them as a picture, named after the step."""
        picture = pictures.preview(model)
        self._tasks.put(lambda run: run.client.log_image(run.id, picture, f"previews/{step:08d}.png"))

    def close(self, status: str) -> None:
        """Set the status of the run and wait until all is written, at most `_PATIENCE` seconds for a server."""
        self._tasks.put(lambda run: run.set_status(status))
        self._tasks.put(None)
        self._thread.join(self._patience)

    def _work(self, settings: Tracking, fingerprint: str, tags: Mapping[str, str]) -> None:
        try:
            run = Run.open(settings, fingerprint, folder=Path(), age=0.0)
            run.describe(self._params, tags)
            run.set_status("RUNNING")
            self._perform_tasks(run)
        except Exception as error:  # a failure here must not stop training
            store.warn(error)

    def _perform_tasks(self, run: Run) -> None:
        """Perform tasks until None comes; log the system metrics in each interval and at the end."""
        log_system, due = _system_metrics(run), time.monotonic() + _INTERVAL
        while True:
            try:
                task = self._tasks.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                log_system()
                due += _INTERVAL
                continue
            if task is None:
                return log_system()
            task(run)


def _system_metrics(run: Run) -> Callable[[], None]:
    """Return a function that logs the use of processors, memory, disk, network and GPUs since its last call.

    The thread of MLflow's own monitor, `start` and `finish`, is not used: it drops what it measured last, so that a
    training of less than one interval has no point, and its first point covers no time.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    uri = run.client.tracking_uri
    monitor: Any = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=uri)
    monitor.collect_metrics()
    for part in monitor.monitors:  # the first measurement of a processor covers no time
        part.clear_metrics()

    def log() -> None:
        monitor.collect_metrics()
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()

    return log


@contextmanager
def live(params: Params, train_digest: str) -> Iterator[Live]:
    """Log a training in MLflow. The run of a killed training stays RUNNING until it is resumed or published."""
    run = Live(params.tracking, identity.fingerprint(train_digest), identity.origin() | journal.machine())
    status = "FAILED"
    try:
        yield run
        status = "RUNNING"  # until `publish` has the results
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.close(status)
