"""What MLflow knows of the experiments: the reading half of tracking."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from ddpm.errors import UsageError
from ddpm.params import Tracking
from lab.pages.comparison import Experiment
from lab.tracking import store
from lab.tracking.run import EXTRACTOR, FINGERPRINT


class Records:
    """What MLflow knows of the experiments. The methods raise `UsageError` where it does not answer."""

    def __init__(self, settings: Tracking) -> None:
        """A connection is made when it is first needed; a store of SQLite that is not there is not created."""
        self.uri = store.uri(settings)
        self.group = settings.experiment
        path = self.uri.removeprefix("sqlite:///")
        self._empty = path != self.uri and not Path(path).exists()
        self._client = cache(partial(store.connect, settings))

    def experiments(self) -> list[Experiment]:
        """All but the deleted, newest first."""
        if self._empty:
            return []
        with self._answering():
            return [
                Experiment(
                    name=run.info.run_name or "",
                    fingerprint=run.data.tags.get(FINGERPRINT, ""),
                    status=run.info.status.lower(),
                    started=run.info.start_time / 1000,
                    params={key: _decoded(value) for key, value in run.data.params.items()},
                    metrics={key: _unbounded(value) for key, value in run.data.metrics.items()},
                    extractor=run.data.tags.get(EXTRACTOR, ""),
                    id=run.info.run_id,
                )
                for run in store.runs(self._client(), self.group)
            ]

    def loss(self, id: str) -> list[tuple[int, float]]:
        """The loss curve of an experiment: steps and values."""
        with self._answering():
            return sorted((point.step, point.value) for point in self._client().get_metric_history(id, "loss"))

    def samples(self, id: str, folder: Path) -> Path | None:
        """The grid of samples, brought into a folder; None where it is not drawn yet, damaged, or kept out of reach."""
        folder.mkdir(parents=True)
        try:
            path = Path(self._client().download_artifacts(id, "reports/samples.png", str(folder)))
            with Image.open(path) as picture:
                picture.verify()
        except Exception:  # each kind of artifact store has its own
            return None
        return path

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # MLflow's own, the database's, the network's
            raise UsageError(f"MLflow at {store.masked(self.uri)} cannot be read: {store.reason(error)}") from error


def _unbounded(value: float) -> float:
    """A metric as it was before a database without infinities kept it."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _decoded(value: str) -> Any:
    """A parameter as it was before `lab.tracking.run` wrote it."""
    try:
        return json.loads(value)
    except ValueError:
        return value
