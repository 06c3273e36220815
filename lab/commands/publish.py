"""Publish experiments in MLflow: the current one and those that DVC keeps, if their results are up to date."""

import os
import sys
import tempfile
from pathlib import Path

import typer

from ddpm.errors import UsageError
from ddpm.params import Params
from lab.experiment import dvcfile, identity, results
from lab.pages import summary
from lab.tracking import publish, store
from lab.tracking.publish import Published


def conclude(params: Params, published: Published | None) -> None:
    """Print the five lines that end the run here. A failure is a warning, because the results are complete."""
    try:
        typer.echo(f"\n{_summary(params, published)}")
    except Exception as error:
        print(f"the summary of the run could not be printed ({store.reason(error)})", file=sys.stderr, flush=True)


def _summary(params: Params, published: Published | None) -> str:
    metrics, protocol = results.metrics(Path("reports/metrics.json")), results.read(Path("reports/protocol.json"))
    name = published.name if published else identity.title(identity.fingerprint(protocol["train_digest"]))
    tracked = shown(params, published) if published else "not written; `ddpm publish` repeats it"
    experiment = os.environ.get("DVC_EXP_NAME")
    copy = Path.cwd() != dvcfile.ROOT  # of the repository, which DVC removes after the run
    report = f"reports/index.html, after `dvc exp apply {experiment}`" if copy else "reports/index.html"
    after = None if experiment else summary.quick_experiment(params)
    return summary.text(metrics, protocol, name, report, tracked, after or "ddpm compare")


def shown(params: Params, published: Published) -> str:
    """Where MLflow shows the runs: at a server, or at the address of `ddpm ui`."""
    return published.address if store.is_server(params.tracking) else f"`ddpm ui`, {published.address}"


def here(params: Params) -> Published | None:
    """Publish the experiment here; return None if that failed. Raises `UsageError` if its results are outdated."""
    if not Path("reports/metrics.json").is_file():
        raise UsageError("there is no reports/metrics.json to publish: run `dvc repro` first, or `dvc pull`")
    if changes := identity.outdated():
        listed = "".join(f"\n  {change}" for change in changes)
        raise UsageError(
            f"the results in reports/ are not those of the parameters and the code here:{listed}\nrun `dvc repro`"
        )
    return publish.publish(params)


def everything(params: Params) -> list[Published] | None:
    """Publish the experiment here and all that DVC keeps, print which are left out, and return the published runs.

    Returns None at the first failure of MLflow, because each further attempt would also wait for the timeout. Raises
    `UsageError` without git.
    """
    published = []
    try:
        if not (run := here(params)):
            return None
        published.append(run)
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
            elif run := publish.publish(params, Path(folder), name, commit):
                published.append(run)
            else:
                return None
    return published
