"""Sampling options for people; the defaults fit the model.

`ddpm generate` and the served model build their options from the fields of `Options`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ValidationError

from ddpm.params import Conflict, ConflictError, Sample, broken_rule, sampling_conflicts

if TYPE_CHECKING:  # importing it imports torch, which takes seconds
    from ddpm.network.modelfile import Description

_BATCH = 256  # images
_GUIDANCE = 2.0  # if only a label is given
_STEPS = {"ddim": 50, "dpm_solver": 20}


@dataclass(frozen=True)
class Options:
    """Sampling options, each with its type, help text and default. None means that the default fits the model."""

    sampler: Annotated[Literal["ancestral", "ddim", "dpm_solver"] | None, "Algorithm 2, DDIM or DPM-Solver++(2M)."] = (
        "ddim"
    )
    count: Annotated[int, "Number of images."] = 16
    seed: Annotated[int, "Seed of the noise."] = 0
    steps: Annotated[int | None, "Network evaluations. Default: ddim 50, dpm_solver 20, ancestral all."] = None
    eta: Annotated[
        float | None, "Noise of ddim: 0 (none) to 1 (as ancestral). Default: 1 (0 for the interpolation process)."
    ] = None
    sigma: Annotated[Literal["large", "small"] | None, "Fixed variance of ancestral. Default: large."] = None
    spacing: Annotated[Literal["leading", "trailing", "linspace", "quad"], "Spacing of the times of the steps."] = (
        "trailing"
    )
    clip: Annotated[bool, "Clip each predicted image to the value range of images."] = True
    label: Annotated[
        list[str] | None,
        "Class of the images, by name or index; several are drawn in turn. Default with --guidance: all classes.",
    ] = None
    guidance: Annotated[float | None, "Guidance weight; 0 uses the class alone. Default with --label: 2."] = None
    precision: Annotated[Literal["fp32", "bf16"], "Precision of the network's weights."] = "fp32"


def settings(description: "Description", options: Options) -> Sample:
    """The settings of the sampler for a model: the given options, and defaults for the others.

    Raises `ConflictError` for values that are not allowed and for options that the sampler or the model does not use.
    """
    values = vars(options) | {"batch_size": _BATCH}
    del values["label"]
    values |= {key: value for key, value in _defaults(description, options).items() if values[key] is None}
    try:
        chosen = Sample.model_validate(values)
    except ValidationError as error:
        rules = [(e["loc"][0], e["input"], broken_rule(dict(e))) for e in error.errors()]
        raise ConflictError([Conflict(f"sample.{key}", value, rule) for key, value, rule in rules]) from None
    conflicts = list(sampling_conflicts(chosen, description.diffusion, description.network))
    if options.label is not None and not description.network.conditional:
        conflicts.append(
            Conflict(
                "sample.label",
                ", ".join(options.label),
                "applies only to conditional models; this model has no classes, so omit it",
            )
        )
    if conflicts:
        raise ConflictError(conflicts)
    return chosen


def _defaults(description: "Description", options: Options) -> dict[str, Any]:
    """Values that fit the model, for the options that are None."""
    diffusion = description.diffusion
    gaussian, timesteps = diffusion.process == "gaussian", diffusion.timesteps
    sampler = options.sampler or ("ancestral" if gaussian else "ddim")
    return {
        "sampler": sampler,
        "steps": min(_STEPS.get(sampler, timesteps), timesteps),
        "eta": float(gaussian) if sampler == "ddim" else None,
        "sigma": "large" if sampler == "ancestral" and diffusion.variance == "fixed" else None,
        "guidance": _GUIDANCE if options.label is not None and description.network.conditional else None,
    }
