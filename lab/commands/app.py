"""The `ddpm` command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ddpm.errors import UsageError
from lab.tracking import store

app = typer.Typer(
    help="Denoising diffusion experiments: recipes, images from trained models, records, housekeeping.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@contextmanager
def _readable_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"ddpm: {message}", err=True)
    raise typer.Exit(1) from None


def _in_repository() -> None:
    """Work from the experiment's root, as `dvc` does. Raises `UsageError` outside of one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "recipes").is_dir():
            os.chdir(folder)
            return
    raise UsageError(f"{here} is not inside an experiment repository: there is no dvc.yaml with recipes/ beside it")


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Which; without it, list them.", show_default=False)] = None,
) -> None:
    """List the recipes, or write params.yaml as the default with a recipe's changes."""
    with _readable_errors():
        _in_repository()
        from ddpm import files
        from lab.commands import recipe

        folder = Path("recipes")
        if name is None:
            found = recipe.names(folder)
            for known, comment in found.items():
                typer.echo(f"{known:<{max(map(len, found))}}  {comment}")
            return
        files.write_text(Path("params.yaml"), recipe.compose(name, folder))
        typer.echo(f"params.yaml is now the recipe {name}; run it with `dvc repro` or `dvc exp run`")


ModelFile = Annotated[Path, typer.Option(help="The model file, such as models/model.safetensors.")]
Steps = Annotated[int | None, typer.Option(help="Network evaluations; ddim: 50, dpm_solver: 20, ancestral: all.")]
Eta = Annotated[
    float | None,
    typer.Option(help="ddim: 0 deterministic .. 1 as random as ancestral; 1, or 0 where the process knows no other."),
]
Sigma = Annotated[
    str | None, typer.Option(help="ancestral, where the model has learned no variance: large or small; large.")
]
Spacing = Annotated[str, typer.Option(help="Which times make fewer steps: leading, trailing, linspace or quad.")]
Clip = Annotated[bool, typer.Option(help="Whether every predicted image is kept within the range of images.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


@app.command()
def generate(
    model: ModelFile,
    out: Annotated[
        Path, typer.Option(help=".png: a grid; .gif: the denoising; .safetensors: a tensor; else a folder.")
    ],
    count: Annotated[int, typer.Option(help="How many images.")] = 16,
    sampler: Annotated[str, typer.Option(help="ddim, ancestral or dpm_solver.")] = "ddim",
    steps: Steps = None,
    eta: Eta = None,
    sigma: Sigma = None,
    spacing: Spacing = "trailing",
    clip: Clip = True,
    seed: Annotated[int, typer.Option(help="Of the noise; with the pipeline's settings, its first images.")] = 0,
    label: Annotated[
        str | None, typer.Option(help="The class, by name or index; with --guidance alone all in turn.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly towards the class: 0 by the class alone; with --label 2.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw images from a trained model."""
    with _readable_errors():
        from ddpm.device import resolve
        from ddpm.network import modelfile
        from ddpm.sampling import options
        from lab.commands import generate as generating

        loaded = modelfile.load(model, resolve(device))
        asked = options.Options(sampler, count, seed, steps, eta, sigma, spacing, clip, label, guidance)
        chosen = options.settings(loaded.description, asked)
        generating.generate(loaded, chosen, options.labels(loaded, chosen, label), out)
        typer.echo(f"{out}")


@app.command()
def interpolate(
    model: ModelFile,
    images: Annotated[
        list[Path], typer.Option(help="Twice an image file, or once a .safetensors of images, with --pair.")
    ],
    out: Annotated[Path, typer.Option(help="The picture, .png.")],
    at: Annotated[
        list[int] | None, typer.Option(help="The time of the mixing, 1..T, for a row; T/2; may be repeated.")
    ] = None,
    pair: Annotated[tuple[int, int] | None, typer.Option(help="Which two images of the .safetensors.")] = None,
    mixes: Annotated[int, typer.Option(help="How many, the two images' own reconstructions included.")] = 11,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, ancestral or dpm_solver; ancestral where the process knows it.")
    ] = None,
    steps: Steps = None,
    eta: Eta = None,
    sigma: Sigma = None,
    spacing: Spacing = "trailing",
    clip: Clip = True,
    seed: Annotated[int, typer.Option(help="Of the noise, which all mixes share.")] = 0,
    device: Device = "auto",
) -> None:
    """Picture the way from one image to another through the noise, as in the paper's Section 4.3."""
    with _readable_errors():
        from ddpm.device import resolve
        from ddpm.network import modelfile
        from ddpm.sampling import options
        from lab.commands import interpolate as interpolating

        loaded = modelfile.load(model, resolve(device))
        sampler = sampler or ("ancestral" if loaded.description.diffusion.process == "gaussian" else "ddim")
        asked = options.Options(sampler, max(mixes, 1), seed, steps, eta, sigma, spacing, clip)
        chosen = options.settings(loaded.description, asked)
        sources = interpolating.sources(loaded.description, images, pair)
        interpolating.picture(loaded, sources, at or [loaded.denoiser.process.timesteps // 2], mixes, chosen, out)
        typer.echo(f"{out}")


@app.command()
def export(
    model: ModelFile,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    sigma: Sigma = None,
    clip: Clip = True,
) -> None:
    """Write a model as a folder that diffusers' DDPMPipeline loads, and samples with this variance and clipping."""
    with _readable_errors():
        from ddpm.interop import diffusers
        from ddpm.network import modelfile

        loaded = modelfile.load(model)
        diffusers.export(loaded.description, loaded.network.state_dict(), out, sigma, clip)
        typer.echo(f"{out}")


@app.command("import")
def import_model(
    source: Annotated[Path, typer.Argument(help="A diffusers folder, or a checkpoint with the official names.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
) -> None:
    """Make a model file of a model from elsewhere, and print the recipe that evaluates it."""
    with _readable_errors():
        from lab.commands import import_

        typer.echo(import_.bring(source, out), nl=False)


@app.command()
def publish(
    all_experiments: Annotated[bool, typer.Option("--all", help="Of every DVC experiment, not only this one.")] = False,
) -> None:
    """Write this experiment's records into MLflow; what is there already stays as it is."""
    with _readable_errors():
        _in_repository()
        from ddpm.params import load
        from lab.commands import publish as publishing
        from lab.experiment import dvcfile

        params = load(dvcfile.PARAMS)
        if all_experiments:
            published = publishing.everything(params, partial(typer.echo, err=True))
            many = "1 experiment " if published == 1 else f"{published} experiments "
        else:
            published, many = publishing.here(params) or None, ""
        if published is None:
            raise typer.Exit(1)
        typer.echo(f"published {many}to {store.masked(store.uri(params.tracking))}")


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Which: names, patterns such as 'eta-*', beginnings of fingerprints; else all.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Show it, and sort by the first, such as classifier.fid; may be repeated.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write it as a table too: every metric, all digits; - prints that instead.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page too: samples side by side, loss curves.")] = None,
) -> None:
    """Compare the experiments in MLflow: the parameters in which they differ, and their metrics."""
    with _readable_errors():
        printed = csv == Path("-")
        table_file = csv.absolute() if csv and not printed else None  # of where one stands
        page_file = html.absolute() if html else None
        _in_repository()
        from rich.console import Console

        from ddpm import files
        from ddpm.params import load
        from lab.commands import compare as comparing
        from lab.experiment import dvcfile
        from lab.tracking.records import Records

        records = Records(load(dvcfile.PARAMS).tracking)
        for path in filter(None, (table_file, page_file)):
            files.check_writable(path)
        table = comparing.collect(records, names or [], metric or [])
        if printed:
            typer.echo(comparing.csv(table), nl=False)
        else:
            comparing.show(table, Console(highlight=False))
        if table_file:
            files.write_text(table_file, comparing.csv(table))
        if page_file:
            files.write_text(page_file, comparing.page(table, records, metric[0] if metric else None))


@app.command()
def clean(
    only_list: Annotated[bool, typer.Option("--list", help="Only list it.")] = False,
) -> None:
    """List resumable training state, and remove what is finished."""
    with _readable_errors():
        _in_repository()
        from lab.experiment import state

        folders = state.folders()
        if not folders:
            typer.echo("there is no resumable state")
        for folder in folders:
            status, size, age = folder.status, folder.size / 1e6, state.age(folder.modified)
            removed = not status.startswith("unfinished") and not only_list and folder.remove()
            typer.echo(f"{folder.path.name}  {status:<26}  {size:8.1f} MB  {age:>10}{'  removed' if removed else ''}")


if __name__ == "__main__":
    app()
