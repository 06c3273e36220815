"""Conversion between the section `diffusion` of params.yaml and the config of a diffusers scheduler."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ddpm import alternatives
from ddpm.diffusion import schedule
from ddpm.params import Conflict, Gaussian, Number, Section, Timesteps

CLASSES = ("DDPMScheduler", "DDIMScheduler")
_SCHEDULES = {"linear": "linear", "quad": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_PREDICTIONS = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}
_SIGMAS = {"fixed_large": "large", "fixed_large_log": "large", "fixed_small": "small", "fixed_small_log": "small"}
_VarianceType = Literal["fixed_large", "fixed_large_log", "fixed_small", "fixed_small_log", "learned_range"]
_BY_SIMPLICITY = ("const", "linear", "quad", "warmup10", "warmup50", "jsd", "cosine", "sigmoid")


class SchedulerConfig(Section, extra="ignore"):
    """The keys that determine the process, with diffusers' default values. A literal lists the supported values."""

    num_train_timesteps: Timesteps
    beta_schedule: str = "linear"
    beta_start: Number | None = 1e-4
    beta_end: Number | None = 0.02
    trained_betas: Annotated[list[Annotated[Number, Field(ge=0, le=1)]], Field(min_length=1)] | None = None
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    variance_type: _VarianceType = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: Literal[1] = 1
    predict_epsilon: Literal[True] = True
    rescale_betas_zero_snr: Literal[False] = False
    thresholding: Literal[False] = False


def export_conflicts(diffusion: Gaussian, sigma: str | None) -> Iterator[Conflict]:
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
        yield Conflict("diffusion.value_range", diffusion.value_range, "must be [-1.0, 1.0] for DDPMPipeline")


def config(diffusion: Gaussian, sigma: str | None, clip: bool) -> dict[str, Any]:
    """The config of a DDPMScheduler, whose fixed variance is large unless `sigma` is small.

    A schedule that diffusers does not have is written as a list of its betas.
    """
    betas: dict[str, Any] = {"trained_betas": schedule.betas(diffusion).tolist()}
    if diffusion.schedule in _SCHEDULES:
        betas = diffusion.model_dump(include={"beta_start", "beta_end"}, exclude_none=True)
        betas["beta_schedule"] = _SCHEDULES[diffusion.schedule]
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


def import_conflicts(config: SchedulerConfig) -> Iterator[Conflict]:
    """The settings of a config that params.yaml cannot express."""
    if _schedule(config) is None:
        key = "beta_schedule" if config.trained_betas is None else "trained_betas"
        yield Conflict(key, f"{getattr(config, key)!s:.60}", "is not a schedule of params.yaml")


def section(config: SchedulerConfig) -> dict[str, Any]:
    """The keys of the section `diffusion` that a config without conflicts determines."""
    return {
        "timesteps": config.num_train_timesteps,
        **(_schedule(config) or {}),
        "prediction": next(ours for ours, theirs in _PREDICTIONS.items() if theirs == config.prediction_type),
        "variance": "fixed" if config.variance_type in _SIGMAS else config.variance_type,
    }


def sampling(config: SchedulerConfig) -> dict[str, Any]:
    """The keys of the section `sample` for the same variance and clipping."""
    return {"sigma": _SIGMAS.get(config.variance_type), "clip": config.clip_sample}


def _schedule(config: SchedulerConfig) -> dict[str, Any] | None:
    """The simplest schedule of params.yaml with the name or the betas of the config, and its first and last beta."""
    trained = config.trained_betas
    first, last = (trained[0], trained[-1]) if trained else (config.beta_start, config.beta_end)
    for name in _BY_SIMPLICITY:
        ends = {"schedule": name, "beta_start": first, "beta_end": last}
        candidate: dict[str, Any] = alternatives.in_use({"diffusion": ends})["diffusion"]
        if trained is None:
            found = _SCHEDULES.get(name) == config.beta_schedule
        else:
            betas = schedule.betas(Gaussian.model_construct(timesteps=config.num_train_timesteps, **candidate))
            found = len(betas) == len(trained) and np.allclose(betas, trained, rtol=1e-5, atol=0)
        if found:
            return candidate
    return None
