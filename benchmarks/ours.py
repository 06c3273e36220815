"""This project's training step and sampling loop as cases of a measurement."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import recipes
from ddpm import device as devices
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.network.modelfile import Description, Model
from ddpm.params import Params, Sample
from ddpm.sampling import blocks
from ddpm.training import loop

MODES: dict[str, dict[str, Any]] = {  # arguments of torch.compile
    "eager": {},
    "compiled": {"dynamic": False},
    "graphs": {"dynamic": False, "mode": "reduce-overhead"},
    "runtime.compile": {},  # as this project compiles, which differs for training and sampling
}
ENDLESS = 10**9  # optimizer steps


def for_training(network: nn.Module, params: Params, device: torch.device, mode: str) -> Callable[..., Tensor]:
    """The network in one of the modes; the compiled ones do not compile the average of its weights."""
    if mode == "runtime.compile":
        return devices.compiled_for_training(network, device, params.runtime.deterministic, params.train.accumulate)
    return torch.compile(network, **MODES[mode]) if MODES[mode] else network


def training(params: Params, device: torch.device, mode: str = "eager") -> Callable[[], object]:
    """A function that takes one optimizer step of the real training loop on random images."""
    settings = params.train.model_copy(update={"steps": ENDLESS})
    described = recipes.description(params)
    network = recipes.network(described).to(device)
    network.to(memory_format=devices.memory_format(device, settings.precision))
    learner = loop.Learner.start(network, settings)
    forward = process.from_settings(params.diffusion, device)
    denoiser = Denoiser(for_training(network, params, device, mode), forward, params.diffusion)
    batches = Batches(recipes.dataset(described), settings, params.diffusion.value_range, device)
    return partial(next, loop.train(learner, denoiser, batches, settings))


def sampling(
    params: Params, device: torch.device, batch: int, evaluations: int, precision: str, mode: str = "eager"
) -> Callable[[], object]:
    """A function that draws a batch of images in a chain of so many network evaluations, by DDIM without noise."""
    described = recipes.description(params)
    made = model(described, recipes.network(described), device, precision)
    if mode == "runtime.compile":
        made = made.compiled(params.runtime.deterministic, batch)
    elif MODES[mode]:
        network = torch.compile(made.denoiser.network, **MODES[mode])
        made = replace(made, denoiser=replace(made.denoiser, network=network))
    settings = chain(params, batch, evaluations, precision)

    def run() -> object:
        *_, last = blocks.trajectory(made, settings, 0, batch)
        return last

    return run


def model(described: Description, network: nn.Module, device: torch.device, precision: str) -> Model:
    """A model of a network, in evaluation mode, at a precision of the section `sample`."""
    network = network.to(device).to(memory_format=devices.memory_format(device, precision))
    network.eval().requires_grad_(False)
    return modelfile.assemble(described, network.to(devices.dtype(precision)), "", device)


def chain(params: Params, count: int, evaluations: int, precision: str) -> Sample:
    """The settings of a short DDIM chain without noise."""
    changes = {
        "sampler": "ddim",
        "eta": 0.0,
        "sigma": None,
        "spacing": "trailing",
        "steps": evaluations,
        "count": count,
        "batch_size": count,
        "guidance": None,
        "precision": precision,
    }
    return params.sample.model_copy(update=changes)
