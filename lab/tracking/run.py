"""One MLflow run per experiment, found or created by the experiment's fingerprint.

Writing a run again adds nothing: the timestamp of a point follows from the start of the run and the step, so that a
repeated point is the same point.
"""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm.params import Tracking
from lab.experiment import identity
from lab.tracking import store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

FINGERPRINT = "ddpm.fingerprint"
MODEL = "ddpm.model"
EXTRACTOR = "ddpm.extractor"
_SPEED = "images_per_second"


class Run:
    """An MLflow run to write to."""

    def __init__(self, client: "MlflowClient", run: "MlflowRun") -> None:
        self.client = client
        self.id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.tags: dict[str, str] = run.data.tags
        self._metrics: dict[str, float] = run.data.metrics
        self._start: int = run.info.start_time

    @classmethod
    def open(cls, settings: Tracking, fingerprint: str, name: str | None = None) -> "Run":
        """Find or create the run of an experiment, and name it."""
        client = store.connect(settings)
        with store.lock():
            group = store.experiment_id(client, settings.experiment)
            found = client.search_runs([group], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
            run = found[0] if found else client.create_run(group, tags={FINGERPRINT: fingerprint})
        name = name or os.environ.get("DVC_EXP_NAME") or (run.info.run_name if found else fingerprint[:8])
        client.update_run(run.info.run_id, name=name)
        return cls(client, run)

    def describe(self, folder: Path, tags: Mapping[str, str]) -> None:
        """Log the parameters in `folder`, and tags."""
        from mlflow.entities import Param, RunTag

        params = [
            Param(key, value if isinstance(value, str) else json.dumps(value))
            for key, value in identity.params(folder).items()
        ]
        self.client.log_batch(self.id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])

    def log(self, points: Sequence[Mapping[str, float]]) -> None:
        """Log metrics: each point has a `step` and the values at that step."""
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, self._start + int(point["step"]), int(point["step"]))
            for point in points
            for key, value in point.items()
            if key != "step"
        ]
        self.client.log_batch(self.id, metrics)

    def log_speed(self, step: float, images_per_second: float) -> None:
        """Log the speed at a step, unless an earlier attempt has reached it: a speed never repeats exactly."""
        if step > self._last_timed_step:
            self.log([{"step": step, _SPEED: images_per_second}])

    @cached_property
    def _last_timed_step(self) -> int:
        return max((point.step for point in self.client.get_metric_history(self.id, _SPEED)), default=-1)

    def has_different_results(self, measured: Mapping[str, float], model_digest: str) -> bool:
        """Whether the run has other results of this experiment, because another machine rounds differently.

        MLflow cannot remove a point, and of two values with one timestamp it shows the larger.
        """
        logged = [(self._metrics[key], value) for key, value in measured.items() if key in self._metrics]
        return self.tags.get(MODEL, model_digest) != model_digest or any(
            old != _finite(new) and not math.isnan(new) for old, new in logged
        )

    def set_status(self, status: str) -> None:
        """Set RUNNING, FINISHED or FAILED."""
        if status == "RUNNING":
            self.client.update_run(self.id, status)
        else:
            self.client.set_terminated(self.id, status)


def _finite(value: float) -> float:
    """A metric as MLflow's database returns it, without infinities."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))
