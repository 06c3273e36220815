"""The `ddpm` command: signatures and errors. Each command's work is in its own module."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ddpm.errors import UsageError
from ddpm.sampling.options import Options
from lab import failures
from lab.commands.sampling import NAMES, sampling_options


class _Commands(TyperGroup):
    """The commands, which end with one message and exit code 1 after an error that is no bug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from lab.experiment import remedy

            known = f"{error}{remedy.of(error)}" if isinstance(error, UsageError) else failures.line(error)
            if known is None:
                raise
            typer.echo(f"ddpm: {known}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Denoising diffusion experiments: use recipes and images, generate, exchange models, compare results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
ModelFile = Annotated[Path, typer.Option(help="Model file, such as models/model.safetensors.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def _repository() -> Path | None:
    """The root of the experiment repository, or None outside of one."""
    here = Path.cwd()
    roots = (one for one in (here, *here.parents) if (one / "dvc.yaml").is_file() and (one / "recipes").is_dir())
    return next(roots, None)


def _in_repository() -> None:
    """Change to the root of the experiment repository. Raises `UsageError` outside of one."""
    if (root := _repository()) is None:
        raise UsageError(f"{Path.cwd()} is not in an experiment repository: no parent folder has dvc.yaml and recipes/")
    os.chdir(root)


def _remember_verified() -> None:
    """Verify a large tensor file only once in an experiment repository."""
    from lab.experiment import state

    if root := _repository():
        state.remember_verified(root)


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Recipe to write. Default: list all.", show_default=False)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite changes of params.yaml that are not committed.")
    ] = False,
) -> None:
    """List the recipes, or write one to params.yaml."""
    _in_repository()
    from lab.commands import recipe
    from lab.experiment import dvcfile

    folder = Path("recipes")
    if name is None:
        found = recipe.names(folder)
        for known, comment in found.items():
            typer.echo(f"{known:<{max(map(len, found))}}  {comment}")
        return
    composed = recipe.compose(name, folder)
    if not force:
        recipe.check_kept(dvcfile.PARAMS, folder)
    from ddpm import files  # imports torch, which the list need not wait for

    files.write_text(dvcfile.PARAMS, composed)
    typer.echo(f"params.yaml is now the recipe {name}; run it with `dvc repro` or `dvc exp run`")


@app.command()
def check(
    set_param: Annotated[
        list[str] | None,
        typer.Option(
            "--set-param", "-S", metavar="KEY=VALUE", help="Change to check, as for `dvc exp run`; repeatable."
        ),
    ] = None,
) -> None:
    """Check params.yaml, with changes if there are any, and write nothing."""
    _in_repository()
    from lab.commands import check

    for line in check.check(set_param or [], Path("recipes/default.yaml")):
        typer.echo(line)


@app.command()
def data(
    path: Annotated[
        Path | None, typer.Argument(help="Folder or .zip. Default: the one in params.yaml.", show_default=False)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Set data.image_size. Default: that of params.yaml, else a suggestion.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Set data.channels: 1 grey, 3 RGB. Default: as for the size.")
    ] = None,
    fit: Annotated[str | None, typer.Option(help="Set data.fit: pad, resize or crop.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only, write nothing.")] = False,
) -> None:
    """Examine a folder or .zip of your images, and set it as the source in params.yaml.

    Run it again after you add or remove images.
    """
    where = path and path.absolute()  # relative to the user's folder
    _in_repository()
    from lab.commands import data
    from lab.experiment import dvcfile

    data.current(dvcfile.PARAMS)  # an error of params.yaml comes before the work
    chosen = {"image_size": image_size, "channels": channels, "fit": fit}
    found = data.survey(where or data.source(dvcfile.PARAMS))
    chosen = {key: value for key, value in chosen.items() if value is not None}
    for line in [*data.report(found), *data.change(dvcfile.PARAMS, found, chosen, not dry_run)]:
        typer.echo(line)


@app.command()
@sampling_options(Options())
def generate(
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(help="Output: .png a grid, .gif the reverse process, .safetensors a tensor, otherwise a folder."),
    ],
    options: Options,
    device: Device = "auto",
) -> None:
    """Generate images with a trained model."""
    from ddpm.device import resolve
    from ddpm.network import modelfile
    from lab.commands import generate

    _remember_verified()
    generate.generate(modelfile.load(model, resolve(device), options.precision), options, out)
    typer.echo(f"{out}")


@app.command()
@sampling_options(Options(sampler=None), [name for name in NAMES if name not in ("count", "label", "guidance")])
def interpolate(
    model: ModelFile,
    images: Annotated[
        list[Path], typer.Option(help="Image file (give the option twice), or one .safetensors file with --pair.")
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    *,
    at: Annotated[
        list[int] | None, typer.Option(help="Time t in 1..T; repeat the option for several rows. Default: T/2.")
    ] = None,
    pair: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="INT INT", help="Indices of the two images in the .safetensors file."),
    ] = None,
    mixes: Annotated[int, typer.Option(help="Number of mixes in a row, including both ends.")] = 11,
    options: Options,
    device: Device = "auto",
) -> None:
    """Interpolate between two images at time t, as in Section 4.3 of the paper.

    The default sampler is ancestral, or ddim for the interpolation process.
    """
    from ddpm.device import resolve
    from ddpm.network import modelfile
    from ddpm.sampling.options import settings
    from lab.commands import interpolate

    _remember_verified()
    loaded = modelfile.load(model, resolve(device), options.precision)
    chosen = settings(loaded.description, options)
    sources = interpolate.sources(loaded.description, images, pair)
    interpolate.picture(loaded, sources, at or [loaded.denoiser.process.timesteps // 2], mixes, chosen, out)
    typer.echo(f"{out}")


@app.command()
@sampling_options(Options(), ("sigma", "clip"))
def export(model: ModelFile, out: Annotated[Path, typer.Option(help="Folder to write.")], options: Options) -> None:
    """Export a model to a folder that diffusers' DDPMPipeline loads.

    The folder's scheduler samples with the given variance and clipping.
    """
    from lab.commands import export

    _remember_verified()
    export.export(model, out, options)
    typer.echo(f"{out}")


@app.command("import")
def import_model(
    source: Annotated[Path, typer.Argument(help="diffusers folder, or checkpoint of the paper's code.")],
    out: Annotated[Path, typer.Option(help="Model file to write, such as data/raw/model.safetensors.")],
) -> None:
    """Import a model from diffusers or from the paper's code, and print a recipe that evaluates it."""
    from lab.commands import import_

    typer.echo(import_.bring(source, out, _repository()), nl=False)


@app.command()
def publish(
    all_experiments: Annotated[bool, typer.Option("--all", help="Publish all DVC experiments, too.")] = False,
) -> None:
    """Publish the current experiment to MLflow. Existing records stay unchanged."""
    _in_repository()
    from ddpm.params import load
    from lab.commands import publish
    from lab.experiment import dvcfile
    from lab.tracking import store

    params = load(dvcfile.PARAMS)
    target = store.masked(store.uri(params.tracking))
    if all_experiments:
        if (runs := publish.everything(params)) is None:
            raise typer.Exit(1)
        typer.echo(f"published {len(runs)} experiment{'s' * (len(runs) != 1)} to {target}")
        if runs:
            typer.echo(f"the runs in MLflow: {publish.shown(params, runs[0])}")
        return
    if (run := publish.here(params)) is None:
        raise typer.Exit(1)
    typer.echo(f"published to {target}")
    publish.conclude(params, run)


@app.command()
def ui(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the server. Default: 5000, or the next free one.")
    ] = None,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser, if there is a display.")] = True,
) -> None:
    """Show the experiments in MLflow: serve a local store until Ctrl-C, and print the address of the runs."""
    _in_repository()
    from ddpm.params import load
    from lab.commands import ui
    from lab.experiment import dvcfile

    ui.ui(load(dvcfile.PARAMS).tracking, port, browse)


@app.command()
def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, patterns such as 'eta-*', or first characters of fingerprints.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric to show, such as classifier.fid; repeatable. The table is sorted by the first."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="CSV file to write, with all metrics in full precision; - for standard output.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="HTML page to write, with samples and loss curves.")] = None,
) -> None:
    """Compare the experiments in MLflow: the parameters that differ, and the metrics."""
    printed = csv == Path("-")
    table_file = csv.absolute() if csv and not printed else None  # relative to the user's folder
    page_file = html.absolute() if html else None
    _in_repository()
    from rich.console import Console

    from ddpm import files
    from ddpm.params import load
    from lab.commands import compare
    from lab.experiment import dvcfile
    from lab.tracking.records import Records

    records = Records(load(dvcfile.PARAMS).tracking)
    for path in filter(None, (table_file, page_file)):
        files.check_writable(path)
    table = compare.collect(records, names or [], metric or [])
    if printed:
        typer.echo(compare.csv(table), nl=False)
    else:
        compare.show(table, Console(highlight=False))
    if table_file:
        files.write_text(table_file, compare.csv(table))
        typer.echo(f"wrote {csv}: all metrics in full precision")
    if page_file:
        files.write_text(page_file, compare.page(table, records, metric[0] if metric else None))
        typer.echo(f"wrote {html}: open it in a browser", err=printed)


@app.command()
def find(
    code: Annotated[str, typer.Argument(help="Digest of code in a report, or its first 8 characters or more.")],
) -> None:
    """Find the commit whose code made a result: print the newest commit with this digest of code."""
    _in_repository()
    from lab.commands import find

    commit = find.find(code)
    typer.echo(f"{commit.id} {commit.day} {commit.subject}")


@app.command()
def clean(only_list: Annotated[bool, typer.Option("--list", help="List only, remove nothing.")] = False) -> None:
    """List what stages keep to continue after an interruption, and remove it for those that have finished."""
    _in_repository()
    from lab.commands import clean

    for line in clean.clean(remove=not only_list):
        typer.echo(line)


if __name__ == "__main__":
    app()
