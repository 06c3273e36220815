"""What one asks of a trained model, with as few words as one likes: the rest is what suits the model."""

import re
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.network.modelfile import Description, Model
from ddpm.params import Sample, sampling_conflicts
from ddpm.sampling import blocks

_GUIDANCE = 2.0  # for a class that is asked for by itself
_STEPS = {"ddim": 50, "dpm_solver": 20}


@dataclass(frozen=True)
class Options:
    """What one gives on a command line; None is what suits the model."""

    sampler: str = "ddim"
    count: int = 16
    seed: int = 0
    steps: int | None = None
    eta: float | None = None
    sigma: str | None = None
    spacing: str = "trailing"
    clip: bool = True
    label: str | None = None
    guidance: float | None = None


def settings(description: Description, options: Options) -> Sample:
    """The sampler's settings.

    DDIM takes 50 steps and is as random as the process allows, DPM-Solver++ takes 20, ancestral sampling the whole
    chain with the large variance where none is learned. Raises `UsageError`, in terms of the command line.
    """
    diffusion = description.diffusion
    eta, sigma, guidance = options.eta, options.sigma, options.guidance
    if not description.network.conditional and (options.label, guidance) != (None, None):
        raise UsageError("--label and --guidance are for a conditional model, and this one knows no classes")
    if options.label is not None and guidance is None:
        guidance = _GUIDANCE
    if options.sampler == "ddim" and eta is None:
        eta = 1.0 if diffusion.process == "gaussian" else 0.0
    if options.sampler == "ancestral" and diffusion.variance == "fixed" and sigma is None:
        sigma = "large"
    values = {
        "seed": options.seed,
        "count": options.count,
        "batch_size": 256,
        "sampler": options.sampler,
        "steps": min(_STEPS.get(options.sampler, diffusion.timesteps), diffusion.timesteps),
        "spacing": options.spacing,
        "eta": eta,
        "sigma": sigma,
        "clip": options.clip,
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
        raise UsageError("\n  ".join(re.sub(r"^sample\.(\w+)( =)?", r"--\1", str(conflict)) for conflict in conflicts))
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
