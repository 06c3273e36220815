"""Publish experiments in MLflow: the current one and those that DVC keeps, if their results are up to date."""

import tempfile
from pathlib import Path

import typer

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


def everything(params: Params) -> int | None:
    """Publish the experiment here and all that DVC keeps, print which are left out, and return how many are published.

    Returns None at the first failure of MLflow, because each further attempt would also wait for the timeout. Raises
    `UsageError` without git.
    """
    published = 0
    try:
        if not here(params):
            return None
        published += 1
    except UsageError as error:
        typer.echo(error, err=True)
    for name, commit in identity.dvc_experiments():
        with tempfile.TemporaryDirectory() as folder:
            identity.check_out(commit, Path(folder))
            try:
                problems = "; ".join(identity.outdated(Path(folder)))
            except (UsageError, OSError) as error:
                problems = str(error)
            if problems:
                typer.echo(f"{name} is not published: {problems}", err=True)
            elif publish.publish(params, Path(folder), name, commit):
                published += 1
            else:
                return None
    return published
