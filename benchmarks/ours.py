"""This project's training step and sampling loop as cases of a measurement."""

from collections.abc import Callable
from contextlib import nullcontext
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
}
ENDLESS = 10**9  # optimizer steps


def compiled(network: nn.Module, mode: str) -> nn.Module:
    """The network as it is, compiled, or compiled and replayed as a CUDA graph."""
    if options := MODES[mode]:
        network.compile(**options)
    return network


def training(params: Params, device: torch.device, mode: str = "eager") -> Callable[[], object]:
    """A function that takes one optimizer step of the real training loop on random images."""
    settings = params.train.model_copy(update={"steps": ENDLESS})
    described = recipes.description(params)
    network = recipes.network(described).to(device)
    network.to(memory_format=devices.memory_format(device, settings.precision))
    learner = loop.Learner.start(network, settings)
    forward = process.from_settings(params.diffusion, device)
    denoiser = Denoiser(compiled(network, mode), forward, params.diffusion)
    batches = Batches(recipes.dataset(described), settings, params.diffusion.value_range, device)
    return partial(next, loop.train(learner, denoiser, batches, settings))


def sampling(
    params: Params, device: torch.device, batch: int, evaluations: int, precision: str, mode: str = "eager"
) -> Callable[[], object]:
    """A function that draws a batch of images in a chain of so many network evaluations, by DDIM without noise."""
    described = recipes.description(params)
    made = model(described, recipes.network(described), device, precision, mode)
    settings = chain(params, batch, evaluations, precision)

    def run() -> object:
        *_, last = blocks.trajectory(made, settings, 0, batch)
        return last

    return run


def model(
    described: Description, network: nn.Module, device: torch.device, precision: str, mode: str = "eager"
) -> Model:
    """A model of a network, in evaluation mode, at the precision of the benchmark."""
    network = network.to(device).to(memory_format=devices.memory_format(device, precision))
    network.eval().requires_grad_(False)
    plain = modelfile.assemble(described, network, "", device)
    return replace(plain, denoiser=replace(plain.denoiser, network=at_precision(compiled(network, mode), precision)))


def at_precision(network: nn.Module, precision: str) -> Callable[..., Tensor]:
    """The network, under autocast for bf16."""

    def evaluate(x: Tensor, index: Tensor, **labels: Tensor) -> Tensor:
        with devices.autocast(x.device, precision) if precision != "fp32" else nullcontext():
            return network(x, index, **labels)

    return evaluate


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
    }
    if "precision" in Sample.model_fields:
        changes["precision"] = precision
    return params.sample.model_copy(update=changes)
