"""The experiments as MLflow has them, for comparing them."""

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
from lab.tracking.names import charted, key
from lab.tracking.run import EXTRACTOR, FINGERPRINT

_MOST_RUNS = 50_000  # MLflow's limit for one search


class Records:
    """The runs of an MLflow experiment. Methods raise `UsageError` if the store cannot be read."""

    def __init__(self, settings: Tracking) -> None:
        """Connect when it is first needed; a SQLite database that does not exist is not created."""
        self.uri = store.uri(settings)
        self.group = settings.experiment
        self._client = cache(partial(store.connect, settings))

    def experiments(self) -> list[Experiment]:
        """The experiments that are not deleted, newest first; at most 50,000."""
        if not self._exists():
            return []
        with self._readable_errors():
            found = self._client().get_experiment_by_name(self.group)
            runs = self._client().search_runs([found.experiment_id], max_results=_MOST_RUNS) if found else []
            return [
                Experiment(
                    name=run.info.run_name or "",
                    fingerprint=run.data.tags.get(FINGERPRINT, ""),
                    status=_status(run.info.status),
                    started=run.info.start_time / 1000,
                    params={name: _decoded(value) for name, value in run.data.params.items()},
                    metrics={key(name): _infinite(value) for name, value in run.data.metrics.items()},
                    extractor=run.data.tags.get(EXTRACTOR, ""),
                    id=run.info.run_id,
                )
                for run in runs
            ]

    def viewed(self) -> str:
        """The id of the MLflow experiment, which has the view of `store.address` then.

        Raises `UsageError` with advice if it has no runs.
        """
        with self._readable_errors():
            found = self._client().get_experiment_by_name(self.group) if self._exists() else None
            if found and self._client().search_runs([found.experiment_id], max_results=1):
                store.offer_view(self._client(), found)
                return str(found.experiment_id)
        raise UsageError(self.no_runs())

    def no_runs(self) -> str:
        """What to tell people if there are no runs."""
        return (
            f"no experiment is tracked as {self.group} in {store.masked(self.uri)}: "
            f"run one with `dvc repro`, or publish those that DVC keeps with `ddpm publish --all`"
        )

    def _exists(self) -> bool:
        path = self.uri.removeprefix("sqlite:///")
        return path == self.uri or Path(path).exists()

    def loss(self, id: str) -> list[tuple[int, float]]:
        """The loss curve of an experiment: steps and values."""
        with self._readable_errors():
            history = self._client().get_metric_history
            points = history(id, charted("loss")) or history(id, "loss")  # earlier versions named it so
            return sorted((point.step, point.value) for point in points)

    def samples(self, id: str, folder: Path) -> Path | None:
        """Download the grid of samples into a folder; None if it is missing, damaged or unreachable."""
        folder.mkdir(parents=True)
        try:
            path = Path(self._client().download_artifacts(id, "reports/samples.png", str(folder)))
            with Image.open(path) as picture:
                picture.verify()
        except Exception:  # each kind of artifact store raises different errors
            return None
        return path

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of MLflow, of the database, of the network
            raise UsageError(f"MLflow at {store.masked(self.uri)} cannot be read: {store.reason(error)}") from error


def _status(status: str) -> str:
    return "interrupted" if status == "KILLED" else status.lower()


def _infinite(value: float) -> float:
    """A metric that was infinite before MLflow's database clipped it."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _decoded(value: str) -> Any:
    """A parameter as it was before `Run.describe` encoded it."""
    try:
        return json.loads(value)
    except ValueError:
        return value
