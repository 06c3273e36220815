"""Publish experiments in MLflow: the one here and those that DVC keeps, each only with its own results."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ddpm.errors import UsageError
from ddpm.params import Params
from lab.experiment import identity
from lab.tracking import publish


def here(params: Params) -> bool:
    """Publish the experiment here; return whether that succeeded. Raises `UsageError` if its results are outdated."""
    if not Path("reports/metrics.json").is_file():
        raise UsageError("there is no reports/metrics.json to publish: run `dvc repro` first, or `dvc pull`")
    if changes := identity.outdated():
        listed = "".join(f"\n  {change}" for change in changes)
        raise UsageError(
            f"the results in reports/ are not those of the parameters and the code here:{listed}\nrun `dvc repro`"
        )
    return publish.publish(params)


def everything(params: Params, report: Callable[[str], None]) -> int | None:
    """Publish the experiment here and all that DVC keeps, `report` those that are left out, and return their number.

    None once MLflow could not be written: the next ones would fail as slowly. Raises `UsageError` without git.
    """
    published = 0
    try:
        if not here(params):
            return None
        published += 1
    except UsageError as error:
        report(str(error))
    for name, commit in identity.dvc_experiments():
        with tempfile.TemporaryDirectory() as folder:
            identity.check_out(commit, Path(folder))
            if problems := _problems(Path(folder)):
                report(f"{name} is not published: {problems}")
            elif publish.publish(params, Path(folder), name, commit):
                published += 1
            else:
                return None
    return published


def _problems(folder: Path) -> str:
    """The reasons why the results in `folder` are not those of its experiment; empty where they are."""
    try:
        return "; ".join(identity.outdated(folder))
    except (UsageError, OSError) as error:
        return str(error)
