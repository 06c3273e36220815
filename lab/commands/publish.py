"""Experiments into MLflow by hand: the one here, and those that DVC keeps; each only with results of its own."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ddpm.errors import UsageError
from ddpm.params import Params
from lab.experiment import identity
from lab.tracking import publish

_NOTHING = "there is no reports/metrics.json to publish: run `dvc repro` first, or `dvc pull`"


def here(params: Params) -> bool:
    """Publish the experiment here; True when that worked. Raises `UsageError` where its results are not its own."""
    if not Path("reports/metrics.json").is_file():
        raise UsageError(_NOTHING)
    if changes := identity.outdated():
        listed = "".join(f"\n  {change}" for change in changes)
        raise UsageError(
            f"the results in reports/ are not those of the parameters and the code here:{listed}\nrun `dvc repro`"
        )
    return publish.publish(params)


def everything(params: Params, tell: Callable[[str], None]) -> int | None:
    """Publish the experiment here and all that DVC keeps, and tell of those that are left out; return how many.

    None once MLflow could not be written: the next ones would wait for it as long. Raises `UsageError` without git.
    """
    published = 0
    try:
        if not here(params):
            return None
        published += 1
    except UsageError as error:
        tell(str(error))
    for name, commit in identity.kept():
        with tempfile.TemporaryDirectory() as folder:
            identity.check_out(commit, Path(folder))
            if unfit := _unfit(Path(folder)):
                tell(f"{name} is not published: {unfit}")
            elif publish.publish(params, Path(folder), name, commit):
                published += 1
            else:
                return None
    return published


def _unfit(folder: Path) -> str:
    """Why the files in `folder` are not the whole of an experiment; nothing where they are."""
    try:
        return "; ".join(identity.outdated(folder))
    except (UsageError, OSError) as error:
        return str(error)
