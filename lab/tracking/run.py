"""One MLflow run per experiment, found or created by the experiment's fingerprint.

Files are the truth and MLflow a projection of them. Writing a run again adds nothing: every point carries a timestamp
that follows from the run's start and its step, so a repeated one is the same point.
"""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
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
_BATCH = 1000  # metrics that MLflow takes in one call
_SPEED = "images_per_second"


class Run:
    """An MLflow run, and what is written to it."""

    def __init__(self, client: "MlflowClient", run: "MlflowRun") -> None:
        self.client = client
        self.id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.tags: dict[str, str] = run.data.tags
        self._metrics: dict[str, float] = run.data.metrics
        self._start: int = run.info.start_time
        self._timed: int | None = None  # the last step whose speed an earlier attempt has written

    @classmethod
    def open(cls, settings: Tracking, fingerprint: str, name: str | None = None) -> "Run":
        """Find the experiment's run or create it."""
        with store.lock():
            client = store.client(store.uri(settings))
            group = store.experiment_id(client, settings.experiment)
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
            for key, value in identity.params(folder).items()
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


def _stored(value: float) -> float:
    """A metric as a database of MLflow gives it back: without infinities."""
    return max(-sys.float_info.max, min(sys.float_info.max, value))
