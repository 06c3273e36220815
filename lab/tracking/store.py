"""The store of MLflow: its address, its client, and warnings where it fails."""

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ddpm.errors import UsageError
from ddpm.params import Tracking
from lab import failures
from lab.experiment import dvcfile

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

_ARTIFACTS_FOLDER = "mlartifacts"
_DATABASE = "mlflow.db"
PORT = 5000  # of `ddpm ui`, if it is free
_VIEW = "ddpm"  # a view of the runs that MLflow's UI offers to everyone: the columns of the table
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"
_SHOWN = (
    "attributes.`Duration`",
    *(f"metrics.`{by}.{name}`" for by in ("classifier", "inception") for name in ("fid", "is", "precision", "recall")),
    "metrics.`train/loss`",
    *(f"params.`{key}`" for key in ("sample.sampler", "sample.steps", "train.learning_rate", "train.steps")),
)
_COLUMNS = json.dumps({"selectedColumns": _SHOWN})
_LOGIN = re.compile(r"//[^/@\s]*@")


def uri(settings: Tracking) -> str:
    """The address of the store: the setting, else MLFLOW_TRACKING_URI, else a database in the repository.

    A relative path starts at the repository, also in DVC's temporary copies of it.
    """
    given = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_DATABASE}"
    path = given.removeprefix("sqlite:///")
    return given if path == given else f"sqlite:///{dvcfile.ROOT / path}"


def is_server(settings: Tracking) -> bool:
    """Whether the store is an MLflow server, and not a database that `ddpm ui` serves."""
    return uri(settings).startswith(("http://", "https://"))


def address(settings: Tracking, experiment_id: str, port: int = PORT) -> str:
    """The page in MLflow's UI with the table of the runs, without a password.

    Without `workflowType` the UI opens in its GenAI mode, which does not show runs; without the view the table has no
    metrics. The experiment must have the view.
    """
    server = _LOGIN.sub("//", uri(settings)).rstrip("/") if is_server(settings) else f"http://127.0.0.1:{port}"
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def connect(settings: Tracking) -> "MlflowClient":
    """Create a client of the store. Importing MLflow takes seconds, and so does creating a database."""
    # By default MLflow retries an unreachable server for minutes; with these settings its first call fails within 10 s.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # else it warns of the GPU every few seconds
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # else a traceback for each error it raises
    address = uri(settings)
    path = Path(address.removeprefix("sqlite:///"))
    with lock():
        if address.startswith("sqlite:///") and not path.exists():
            # Creating the tables takes seconds, and MLflow cannot repair a database that a kill left incomplete.
            incomplete = path.with_name(f"{path.name}.new")
            incomplete.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{incomplete}")
            incomplete.replace(path)
        return MlflowClient(address)


def lock() -> FileLock:
    """The lock for creating a database or a run: two processes could damage the database or create a run twice."""
    return FileLock(dvcfile.ROOT / f"{_DATABASE}.lock")


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Find, restore or create the MLflow experiment and return its id. A local store keeps artifacts in the repository.

    Raises `UsageError` where the repository was moved or copied, because MLflow records absolute paths.
    """
    found = client.get_experiment_by_name(name)
    artifacts = (dvcfile.ROOT / _ARTIFACTS_FOLDER).resolve().as_uri()
    if found is None:
        local = client.tracking_uri.startswith("sqlite:")
        return str(client.create_experiment(name, artifacts if local else None, tags={_VIEW_TAG: _COLUMNS}))
    location = found.artifact_location
    own = client.tracking_uri == f"sqlite:///{dvcfile.ROOT / _DATABASE}"
    if own and location.endswith(f"/{_ARTIFACTS_FOLDER}") and location != artifacts:
        raise UsageError(
            f"{_DATABASE} keeps its artifacts in {location}, because this repository was moved or copied: "
            f"move it back; or rename {_DATABASE} and run `ddpm publish --all`, which publishes the current experiment "
            f"and those that DVC keeps"
        )
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    offer_view(client, found)
    return str(found.experiment_id)


def offer_view(client: "MlflowClient", experiment: "Experiment") -> None:
    """Give the MLflow experiment the view that `address` opens, unless it has it; earlier versions gave none."""
    if experiment.tags.get(_VIEW_TAG) != _COLUMNS:
        client.set_experiment_tag(experiment.experiment_id, _VIEW_TAG, _COLUMNS)


def warn(error: Exception) -> None:
    """Print that MLflow could not be written, why, and what to do."""
    later = f" ({reason(error)}); `ddpm publish` fills it in later"
    why = f": {error}" if isinstance(error, UsageError) else later
    print(f"MLflow could not be written{why}", file=sys.stderr, flush=True)


def reason(error: Exception) -> str:
    """The cause of a failure of the machine, else the first line of an error, without passwords."""
    if known := failures.line(error):
        return known.partition(";")[0]
    return masked(str(error).splitlines()[0] if str(error) else type(error).__name__)  # MLflow's have many lines


def masked(text: str) -> str:
    """Remove user names and passwords from the addresses in a text."""
    return _LOGIN.sub("//...@", text)
