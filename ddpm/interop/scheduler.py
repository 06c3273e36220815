"""The section `diffusion` of params.yaml as the config of a diffusers scheduler, and back."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ddpm.diffusion import schedule
from ddpm.interop.refusals import Config, others, unreadable
from ddpm.params import Conflict, Gaussian, Number, Timesteps

CLASSES = ("DDPMScheduler", "DDIMScheduler")
_SCHEDULES = {"linear": "linear", "quad": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}
_VARIANCES = {  # to diffusion.variance and sample.sigma
    "fixed_large": ("fixed", "large"),
    "fixed_large_log": ("fixed", "large"),
    "fixed_small": ("fixed", "small"),
    "fixed_small_log": ("fixed", "small"),
    "learned_range": ("learned_range", None),
}
_ONLY: dict[str, Any] = {  # not ours to choose; diffusers' own value where a config says nothing
    "clip_sample_range": 1,
    "predict_epsilon": True,
    "rescale_betas_zero_snr": False,
    "thresholding": False,
}


class SchedulerConfig(Config):
    """What is read of a scheduler's config, with diffusers' own value where it says nothing."""

    num_train_timesteps: Timesteps
    beta_schedule: str = "linear"
    beta_start: Number | None = 1e-4
    beta_end: Number | None = 0.02
    trained_betas: Annotated[list[Annotated[Number, Field(ge=0, le=1)]], Field(min_length=1)] | None = None
    prediction_type: str = "epsilon"
    variance_type: str = "fixed_small"
    clip_sample: bool = True


def obstacles(diffusion: Gaussian, sigma: str | None) -> Iterator[Conflict]:
    """The settings that no scheduler of diffusers supports."""
    if sigma is not None and diffusion.variance != "fixed":
        yield Conflict("sigma", sigma, "the model has a learned variance")
    elif sigma not in (None, "large", "small"):
        yield Conflict("sigma", sigma, "must be large or small")
    if diffusion.prediction == "mu":
        yield Conflict("diffusion.prediction", "mu", "no scheduler of diffusers supports a predicted mean")
    if diffusion.variance == "learned":
        yield Conflict("diffusion.variance", "learned", "diffusers reads the logarithm of the variance as the variance")
    if diffusion.value_range != [-1, 1]:
        yield Conflict("diffusion.value_range", diffusion.value_range, "DDPMPipeline makes images of [-1.0, 1.0]")


def config(diffusion: Gaussian, sigma: str | None, clip: bool) -> dict[str, Any]:
    """Of a DDPMScheduler, whose fixed variance is large unless `sigma` is small.

    A schedule that diffusers does not have goes as a list of its betas.
    """
    if diffusion.schedule in _SCHEDULES:
        ends = {"beta_start": diffusion.beta_start, "beta_end": diffusion.beta_end}
        betas = {"beta_schedule": _SCHEDULES[diffusion.schedule]} | {k: v for k, v in ends.items() if v is not None}
    else:
        betas = {"trained_betas": schedule.betas(diffusion).tolist()}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion.timesteps,
        **betas,
        "prediction_type": _PREDICTIONS[diffusion.prediction],
        "variance_type": f"fixed_{sigma or 'large'}" if diffusion.variance == "fixed" else diffusion.variance,
        "clip_sample": clip,
        "clip_sample_range": 1.0,
        "timestep_spacing": "leading",
        "steps_offset": 0,
    }


def complaints(config: Mapping[str, Any]) -> Iterator[Conflict]:
    """The keys of a config that params.yaml cannot express."""
    yield from others(config, _ONLY)
    wrong = list(unreadable(config, SchedulerConfig))
    yield from wrong or _value_complaints(SchedulerConfig.model_validate(config))


def _value_complaints(config: SchedulerConfig) -> Iterator[Conflict]:
    if _schedule(config) is None:
        key = "beta_schedule" if config.trained_betas is None else "trained_betas"
        yield Conflict(key, f"{getattr(config, key)!s:.60}", "is none of the schedules of params.yaml")
    if config.prediction_type not in _PREDICTIONS.values():
        yield Conflict("prediction_type", config.prediction_type, f"must be {' or '.join(_PREDICTIONS.values())}")
    if config.variance_type not in _VARIANCES:
        yield Conflict("variance_type", config.variance_type, f"must be {' or '.join(_VARIANCES)}")


def section(config: SchedulerConfig) -> dict[str, Any]:
    """The section `diffusion` of a config without complaints."""
    variance, _ = _VARIANCES[config.variance_type]
    return {
        "process": "gaussian",
        "timesteps": config.num_train_timesteps,
        **(_schedule(config) or {}),
        "prediction": next(ours for ours, theirs in _PREDICTIONS.items() if theirs == config.prediction_type),
        "variance": variance,
        "value_range": [-1.0, 1.0],
    }


def sampling(config: SchedulerConfig) -> dict[str, Any]:
    """What the section `sample` needs for the same variance and clipping."""
    _, sigma = _VARIANCES[config.variance_type]
    return {"sigma": sigma, "clip": config.clip_sample}


def _schedule(config: SchedulerConfig) -> dict[str, Any] | None:
    """The schedule's name and ends; a list of betas is one of ours if it is what ours makes."""
    trained, named = config.trained_betas, config.beta_schedule
    if trained is None:
        candidates = _candidates(config.beta_start, config.beta_end)
        return next((c for c in candidates if _SCHEDULES.get(c["schedule"]) == named), None)
    betas, timesteps = np.array(trained), config.num_train_timesteps
    for candidate in _candidates(trained[0], trained[-1]):
        made = schedule.betas(Gaussian.model_construct(timesteps=timesteps, **candidate))
        if made.shape == betas.shape and np.allclose(made, betas, rtol=1e-5, atol=0):
            return candidate
    return None


def _candidates(first: float | None, last: float | None) -> list[dict[str, Any]]:
    """Every schedule that has these ends, or needs none; the simplest first."""
    ends = {
        "const": (None, last),
        "linear": (first, last),
        "quad": (first, last),
        "warmup10": (first, last),
        "warmup50": (first, last),
        "jsd": (None, None),
        "cosine": (None, None),
        "sigmoid": (None, None),
    }
    return [{"schedule": name, "beta_start": start, "beta_end": end} for name, (start, end) in ends.items()]
