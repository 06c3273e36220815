"""One MLflow run per experiment, found or created by the experiment's fingerprint.

Writing a run again adds nothing: a point whose step and value are there is skipped.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.params import Tracking
from lab.experiment import identity
from lab.tracking import store
from lab.tracking.names import charted

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

FINGERPRINT = "ddpm.fingerprint"
MODEL = "ddpm.model"
EXTRACTOR = "ddpm.extractor"
_SPEED = "images_per_second"


class Run:
    """An MLflow run to write to."""

    def __init__(self, client: "MlflowClient", run: "MlflowRun", name: str) -> None:
        self.client = client
        self.name = name
        self.id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.tags: dict[str, str] = run.data.tags
        self.start: float = run.info.start_time / 1000  # seconds since the epoch
        self._metrics: dict[str, float] = run.data.metrics
        self._points: dict[str, set[tuple[int, str]]] = {}

    @classmethod
    def open(cls, settings: Tracking, fingerprint: str, name: str | None = None, *, folder: Path, age: float) -> "Run":
        """Find or create the run of the experiment in `folder`, and name it. A run is created `age` seconds old.

        A name of DVC, also one that it has made up, is the name of the run, because DVC's commands need it.
        """
        client = store.connect(settings)
        with store.lock():
            group = store.experiment_id(client, settings.experiment)
            found = client.search_runs([group], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
            start = int(1000 * (time.time() - age))
            name = name or os.environ.get("DVC_EXP_NAME")
            if found:
                run = found[0]
            else:  # with its name at once: a process that is killed here must not leave a name that MLflow made up
                first_name = name or identity.title(fingerprint, folder)
                run = client.create_run(group, start, tags={FINGERPRINT: fingerprint}, run_name=first_name)
        name = name or run.info.run_name
        client.update_run(run.info.run_id, name=name)
        return cls(client, run, name)

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Log parameters by their dotted keys, and tags."""
        from mlflow.entities import Param, RunTag

        logged = [Param(key, value if isinstance(value, str) else json.dumps(value)) for key, value in params.items()]
        self.client.log_batch(self.id, params=logged, tags=[RunTag(key, value) for key, value in tags.items()])

    def log(self, points: Sequence[Mapping[str, float]], time_of: Callable[[float], float]) -> None:
        """Log metrics: each point has a `step` and the values at that step; `time_of` is the time of a step.

        Points that the run has already keep their time.
        """
        from mlflow.entities import Metric

        metrics = [
            Metric(charted(key), value, int(1000 * time_of(point["step"])), int(point["step"]))
            for point in points
            for key, value in point.items()
            if key != "step" and (int(point["step"]), _stored(value)) not in self._logged(key)
        ]
        self.client.log_batch(self.id, metrics)
        for metric in metrics:
            self._points[metric.key].add((metric.step, _stored(metric.value)))

    def log_speed(self, step: float, images_per_second: float, time: float) -> None:
        """Log the speed at a step, unless an earlier attempt has reached it: a speed never repeats exactly."""
        if step > max((logged for logged, _ in self._logged(_SPEED)), default=-1):
            self.log([{"step": step, _SPEED: images_per_second}], lambda _: time)

    def _logged(self, key: str) -> set[tuple[int, str]]:
        """The steps and values of a metric that the run has."""
        name = charted(key)
        if name not in self._points:
            history = self.client.get_metric_history(self.id, name) if name in self._metrics else []
            self._points[name] = {(point.step, _stored(point.value)) for point in history}
        return self._points[name]

    def has_different_results(self, measured: Mapping[str, float], model_digest: str) -> bool:
        """Whether the run has other results of this experiment, because another machine rounds differently.

        MLflow cannot remove a point, and of two values with one timestamp it shows the larger.
        """
        logged = [(self._metrics[key], value) for key, value in measured.items() if key in self._metrics]
        return self.tags.get(MODEL, model_digest) != model_digest or any(
            _stored(old) != _stored(new) and not math.isnan(new) for old, new in logged
        )

    def set_status(self, status: str) -> None:
        """Set RUNNING, FAILED, or KILLED, which is MLflow's word for interrupted."""
        if status == "RUNNING":
            self.client.update_run(self.id, status)
        else:
            self.client.set_terminated(self.id, status)

    def finish(self, seconds: float) -> None:
        """Set FINISHED. The run has lasted as long as its stages took; its duration stays unknown if `seconds` is 0."""
        if seconds:
            self.client.set_terminated(self.id, "FINISHED", int(1000 * (self.start + seconds)))
        else:
            self.client.update_run(self.id, "FINISHED")


def _stored(value: float) -> str:
    """A metric as MLflow's database returns it, without infinities, as text: NaN equals NaN."""
    return repr(max(-sys.float_info.max, min(sys.float_info.max, float(value))))
