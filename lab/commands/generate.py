"""Generate images with a model, in the format of the output's suffix."""

from pathlib import Path

from torch import Tensor

from ddpm import figures, files
from ddpm.errors import UsageError
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling import blocks, pictures, samples
from ddpm.sampling.options import Options, settings
from ddpm.sampling.samplers import timesteps
from ddpm.sampling.samples import Samples
from lab import stage

FRAMES = 40  # of an animation, at most
_FORMATS = (".png", ".gif", ".safetensors")


def generate(model: Model, options: Options, out: Path) -> None:
    """Sample images and write them: .png is a grid, .gif the reverse process, .safetensors a tensor, else a folder.

    Raises `UsageError` for options that the model does not allow and for an output that cannot be written.
    """
    chosen = settings(model.description, options)
    labels = blocks.labels(model, chosen, options.label)
    folder = out.suffix not in _FORMATS
    _check_output(out, folder)
    if out.suffix == ".gif":
        _animate(model, chosen, labels, out)
        return
    with stage.bar("sample", chosen.count, "img") as bar:
        images = blocks.draw(model, chosen, labels, bar.update)
    if folder:
        _save_folder(images, out)
    elif out.suffix == ".png":
        figures.save(figures.grid(images, figures.columns_of(chosen.count)), out)
    else:
        samples.write(out, Samples(images, labels, chosen.model_dump(), model.digest))


def _check_output(out: Path, folder: bool) -> None:
    if folder and out.suffix and not out.is_dir():
        raise UsageError(f"--out {out}: must end in .png, .gif or .safetensors, or be a folder")
    if folder and any(out.glob("*.png")):
        raise UsageError(f"--out {out}: already contains images; name another folder")
    files.check_writable(out / "0.png" if folder else out)


def _animate(model: Model, chosen: Sample, labels: Tensor | None, out: Path) -> None:
    states = len(timesteps(chosen, model.denoiser.process.timesteps)) + 1
    with stage.bar("sample", states, "step") as bar:
        pictures.animate(model, chosen, labels, chosen.count, FRAMES, out, bar.update)


def _save_folder(images: Tensor, out: Path) -> None:
    digits = len(str(len(images) - 1))
    for index, image in enumerate(images):
        figures.save(figures.picture(image), out / f"{index:0{digits}d}.png")
