"""Where MLflow keeps its records: the address, the client, and the lock of a local database."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ddpm.errors import UsageError
from ddpm.params import Tracking
from lab.experiment import dvcfile

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_ARTIFACTS_FOLDER = "mlartifacts"
_DATABASE = "mlflow.db"
_PAGE = 1000  # runs that MLflow returns in one call


def uri(settings: Tracking) -> str:
    """Where MLflow keeps its records: the setting, else the environment, else a file in the repository.

    A relative path is the repository's, also in DVC's temporary copies of it.
    """
    given = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_DATABASE}"
    path = given.removeprefix("sqlite:///")
    return given if path == given else f"sqlite:///{dvcfile.ROOT / path}"


def connect(settings: Tracking) -> "MlflowClient":
    """Import MLflow and make its database if there is none: both take seconds."""
    with lock():
        return client(uri(settings))


def runs(client: "MlflowClient", group: str) -> Iterator["Run"]:
    """All runs of an MLflow experiment but the deleted, newest first."""
    found = client.get_experiment_by_name(group)
    token: str | None = ""
    while found is not None and token is not None:
        page = client.search_runs([found.experiment_id], max_results=_PAGE, page_token=token or None)
        yield from page
        token = page.token or None


def lock() -> FileLock:
    """The lock of a local store: two processes that create the database together can leave it broken."""
    return FileLock(dvcfile.ROOT / f"{_DATABASE}.lock")


def client(uri: str) -> "MlflowClient":
    """A client of the store; a local database that does not exist is created."""
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


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Find, restore or create the MLflow experiment and return its id. A local store keeps artifacts in the repository.

    Raises `MovedError` where the repository's own store keeps them in another repository.
    """
    found = client.get_experiment_by_name(name)
    here = (dvcfile.ROOT / _ARTIFACTS_FOLDER).resolve().as_uri()
    if found is None:
        local = client.tracking_uri.startswith("sqlite:")
        return str(client.create_experiment(name, artifact_location=here if local else None))
    there = found.artifact_location
    own = client.tracking_uri == f"sqlite:///{dvcfile.ROOT / _DATABASE}"
    if own and there.endswith(f"/{_ARTIFACTS_FOLDER}") and there != here:
        raise MovedError(there)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


class MovedError(UsageError):
    """The repository was moved or copied, and MLflow records absolute paths."""

    def __init__(self, there: str) -> None:
        super().__init__(
            f"{_DATABASE} keeps its artifacts in {there}, because this repository was moved or copied: "
            f"remove {_DATABASE}, then run `ddpm publish --all`"
        )


def warn(error: Exception) -> None:
    """Print that MLflow could not be written, why, and what to do."""
    moved = isinstance(error, MovedError)
    message = str(error) if moved else f"({reason(error)}); `ddpm publish` fills it in later"
    print(f"MLflow could not be written{': ' if moved else ' '}{message}", file=sys.stderr, flush=True)


def reason(error: Exception) -> str:
    """What went wrong, in a line: MLflow's own errors go on for many."""
    return masked(str(error).splitlines()[0] if str(error) else type(error).__name__)


def masked(text: str) -> str:
    """A text without the names and passwords of its addresses."""
    return re.sub(r"//[^/@\s]*@", "//...@", text)
