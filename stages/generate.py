"""Images from a model file, in the form that the output's name asks for."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import images, tensorfile
from ddpm.atomic import replacing
from ddpm.errors import UsageError
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.reporting import figures
from ddpm.sampling import blocks

FRAMES = 40  # of an animation
_MILLISECONDS = 80  # per frame
_HOLD = 2000  # milliseconds that the finished images stay


def settings(sampler: str, steps: int | None, count: int, seed: int, timesteps: int, eta: float = 1.0) -> Sample:
    """The sampler's settings from what one gives on a command line; the rest are those of recipes/default.yaml.

    DDIM takes 50 steps unless told otherwise, ancestral sampling the whole chain. Raises `UsageError`.
    """
    if sampler not in ("ddim", "ancestral"):
        raise UsageError(f"--sampler {sampler}: must be ddim or ancestral")
    if steps is None:
        steps = min(50, timesteps) if sampler == "ddim" else timesteps
    if not 1 <= steps <= timesteps:
        raise UsageError(f"--steps {steps}: must be between 1 and the model's {timesteps} timesteps")
    if count < 1:
        raise UsageError(f"--count {count}: must be at least 1")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: must be between 0 and 2**63 - 1")
    if not 0 <= eta <= 1:
        raise UsageError(f"--eta {eta}: must be between 0 and 1")
    ddim = sampler == "ddim"
    return Sample(
        seed=seed,
        count=count,
        batch_size=256,
        sampler="ddim" if ddim else "ancestral",
        steps=steps,
        spacing="trailing",
        eta=eta if ddim else None,
        sigma=None if ddim else "large",
        clip=True,
        guidance=None,
    )


def generate(model: Model, chosen: Sample, out: Path) -> None:
    """Draw images and write them: .png a grid, .gif the denoising, .safetensors the tensor, else a folder of PNGs.

    Raises `UsageError` for another suffix.
    """
    writers: dict[str, Callable[[Model, Sample, Path], None]] = {
        ".png": _grid,
        ".gif": _animation,
        ".safetensors": _tensor,
        "": _folder,
    }
    if out.suffix not in writers:
        raise UsageError(f"--out {out}: must end in .png, .gif or .safetensors, or be a folder")
    if out.is_dir() if out.suffix else out.is_file():
        raise UsageError(f"--out {out}: {'a folder' if out.suffix else 'a file'} of that name is in the way")
    writers[out.suffix](model, chosen, out)


def _draw(model: Model, chosen: Sample) -> Tensor:
    with tqdm(total=chosen.count, desc="sample", unit="img", mininterval=1) as bar:
        return blocks.draw(model, chosen, None, bar.update)


def _columns(count: int) -> int:
    """Of a grid that is about as wide as high, or a little wider."""
    return -int(-(count**0.5) // 1)


def _grid(model: Model, chosen: Sample, out: Path) -> None:
    figures.save(figures.grid(_draw(model, chosen), _columns(chosen.count)), out)


def _tensor(model: Model, chosen: Sample, out: Path) -> None:
    tensorfile.write(
        out, {"images": _draw(model, chosen)}, {"sample": chosen.model_dump(), "model_digest": model.digest}
    )


def _folder(model: Model, chosen: Sample, out: Path) -> None:
    digits = len(str(chosen.count - 1))
    for place, image in enumerate(_draw(model, chosen)):
        figures.save(figures.picture(image), out / f"{place:0{digits}d}.png")


def _animation(model: Model, chosen: Sample, out: Path) -> None:
    """x_t along the chain, the finished images held at the end."""
    states = list(tqdm(blocks.trajectory(model, chosen, 0, chosen.count), desc="sample", total=chosen.steps + 1))
    places = torch.linspace(0, len(states) - 1, min(FRAMES, len(states))).round().int().tolist()
    frames = [
        figures.grid(images.to_uint8(states[place].x_t, model.denoiser.value_range).cpu(), _columns(chosen.count))
        for place in places
    ]
    durations = [_MILLISECONDS] * (len(frames) - 1) + [_HOLD]
    with replacing(out) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=durations, loop=0)
