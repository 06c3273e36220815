"""Images from a model file, in the form that the output's name asks for."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import figures, files, images
from ddpm.errors import UsageError
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling import blocks

FRAMES = 40  # of an animation


def generate(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    """Draw images of the classes asked for and write them: a .png is a grid, a .gif the denoising, a .safetensors the
    tensor, anything else a folder of PNGs.

    Raises `UsageError` for what cannot be written.
    """
    writers: dict[str, Callable[[Model, Sample, Tensor | None, Path], None]] = {
        ".png": _grid,
        ".gif": _animation,
        ".safetensors": _tensor,
        "": _folder,
    }
    folder = not out.suffix or (out.suffix not in writers and out.is_dir())
    if not folder and out.suffix not in writers:
        raise UsageError(f"--out {out}: must end in .png, .gif or .safetensors, or be a folder")
    if folder and any(out.glob("*.png")):
        raise UsageError(f"--out {out}: has images already, and these would mix with them; name another folder")
    files.check_writable(out / "0.png" if folder else out)
    writers["" if folder else out.suffix](model, chosen, asked, out)


def _draw(model: Model, chosen: Sample, asked: Tensor | None) -> Tensor:
    with tqdm(total=chosen.count, desc="sample", unit="img", mininterval=1) as bar:
        return blocks.draw(model, chosen, asked, bar.update)


def _grid(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    figures.save(figures.grid(_draw(model, chosen, asked), figures.columns_of(chosen.count)), out)


def _tensor(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    tensors = {"images": _draw(model, chosen, asked)} | ({} if asked is None else {"labels": asked})
    files.write_tensors(out, tensors, {"sample": chosen.model_dump(), "model_digest": model.digest})


def _folder(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    digits = len(str(chosen.count - 1))
    for place, image in enumerate(_draw(model, chosen, asked)):
        figures.save(figures.picture(image), out / f"{place:0{digits}d}.png")


def _animation(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    """x_t along the chain, the finished images held at the end."""
    with tqdm(total=chosen.steps + 1, desc="sample") as bar:
        states = blocks.milestones(model, chosen, asked, chosen.count, FRAMES, bar.update)
    shown = torch.stack([images.to_uint8(state.x_t, model.denoiser.value_range).cpu() for state in states])
    figures.animation(shown, figures.columns_of(chosen.count), out)
