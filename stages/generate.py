"""Images from a model file, in the form that the output's name asks for."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor
from tqdm import tqdm

from ddpm import images, tensorfile
from ddpm.errors import UsageError
from ddpm.network.modelfile import Description, Model
from ddpm.params import Sample, sampling_conflicts
from ddpm.reporting import figures
from ddpm.sampling import blocks

_GUIDANCE = 2.0  # for a class that is asked for by itself
_STEPS = {"ddim": 50, "dpm_solver": 20}
FRAMES = 40  # of an animation


@dataclass(frozen=True)
class Options:
    """What one gives on a command line; None is what suits the model."""

    sampler: str = "ddim"
    count: int = 16
    seed: int = 0
    steps: int | None = None
    eta: float | None = None
    label: str | None = None
    guidance: float | None = None


def settings(description: Description, options: Options) -> Sample:
    """The sampler's settings; what has no option is as in recipes/default.yaml.

    DDIM takes 50 steps and is as random as the process allows, DPM-Solver++ takes 20, ancestral sampling the whole
    chain. Raises `UsageError`, in terms of the command line.
    """
    diffusion = description.diffusion
    eta, guidance = options.eta, options.guidance
    if not description.network.conditional and (options.label, guidance) != (None, None):
        raise UsageError("--label and --guidance are for a conditional model, and this one knows no classes")
    if options.label is not None and guidance is None:
        guidance = _GUIDANCE
    if options.sampler == "ddim" and eta is None:
        eta = 1.0 if diffusion.process == "gaussian" else 0.0
    values = {
        "seed": options.seed,
        "count": options.count,
        "batch_size": 256,
        "sampler": options.sampler,
        "steps": min(_STEPS.get(options.sampler, diffusion.timesteps), diffusion.timesteps),
        "spacing": "trailing",
        "eta": eta,
        "sigma": "large" if options.sampler == "ancestral" and diffusion.variance == "fixed" else None,
        "clip": True,
        "guidance": guidance,
    }
    if options.steps is not None:
        values["steps"] = options.steps
    try:
        chosen = Sample.model_validate(values)
    except ValidationError as error:
        wrong = [f"--{e['loc'][0]} {e['input']}: {e['msg'].replace('Input should', 'must')}" for e in error.errors()]
        raise UsageError("\n  ".join(wrong)) from None
    if conflicts := list(sampling_conflicts(chosen, diffusion, description.network)):
        raise UsageError("\n  ".join(re.sub(r"^sample\.(\w+)( =)?", r"--\1", conflict) for conflict in conflicts))
    return chosen


def labels(model: Model, chosen: Sample, label: str | None) -> Tensor | None:
    """The class asked of each image, int64 (count,): that of a name or index, else what the pipeline asks for.

    Raises `UsageError` where the model does not know the class.
    """
    if label is None:
        return blocks.labels(model, chosen)
    classes = list(model.description.classes)
    known = classes if label in classes else [str(index) for index in range(len(classes))]
    if label not in known:
        listed = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
        raise UsageError(f"--label {label}: the model's classes are {listed}")
    return torch.full((chosen.count,), known.index(label))


def generate(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    """Draw images of the classes asked for and write them: a .png is a grid, a .gif the denoising, a .safetensors the
    tensor, and what has no suffix a folder of PNGs.

    Raises `UsageError` for another suffix.
    """
    writers: dict[str, Callable[[Model, Sample, Tensor | None, Path], None]] = {
        ".png": _grid,
        ".gif": _animation,
        ".safetensors": _tensor,
        "": _folder,
    }
    if out.suffix not in writers:
        raise UsageError(f"--out {out}: must end in .png, .gif or .safetensors, or be a folder")
    if out.is_dir() if out.suffix else out.is_file():
        raise UsageError(f"--out {out}: {'a folder' if out.suffix else 'a file'} of that name is in the way")
    writers[out.suffix](model, chosen, asked, out)


def _draw(model: Model, chosen: Sample, asked: Tensor | None) -> Tensor:
    with tqdm(total=chosen.count, desc="sample", unit="img", mininterval=1) as bar:
        return blocks.draw(model, chosen, asked, bar.update)


def _grid(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    figures.save(figures.grid(_draw(model, chosen, asked), figures.columns_of(chosen.count)), out)


def _tensor(model: Model, chosen: Sample, asked: Tensor | None, out: Path) -> None:
    tensors = {"images": _draw(model, chosen, asked)} | ({} if asked is None else {"labels": asked})
    tensorfile.write(out, tensors, {"sample": chosen.model_dump(), "model_digest": model.digest})


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
