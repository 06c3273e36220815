"""Algorithm 1 of the paper, as a generator: the caller decides what to log, show and save.

Nothing here waits for the device: a record holds tensors, which the caller reads when it needs their values.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddpm import rng
from ddpm.data.batches import Batches
from ddpm.device import autocast
from ddpm.diffusion.denoiser import Denoiser
from ddpm.params import Train
from ddpm.processes import Group
from ddpm.training.gradients import Gradient, Tree
from ddpm.training.objective import loss as loss_of


@dataclass
class Learner:
    """All that training changes: the weights, their moving average, Adam's moments, and the number of steps taken.

    `rewinds` has, for each time that training went back, the first step that was not finite and the step it went to.
    """

    network: nn.Module
    average: nn.Module  # the network with averaged weights, which is what the paper samples from
    optimizer: torch.optim.Adam
    step: int = 0
    rewinds: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def start(cls, network: nn.Module, settings: Train) -> "Learner":
        """Create a learner before its first step, for a network that is already on its device.

        The average starts as a copy of the network, so its decay needs no warm-up.
        """
        first, second = settings.betas
        adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, betas=(first, second), fused=True)
        return cls(network, copy.deepcopy(network).eval().requires_grad_(False), adam)


@dataclass(frozen=True)
class Record:
    """The results of one optimizer step. Loss and gradient norm are scalars on the device."""

    step: int
    loss: Tensor
    gradient_norm: Tensor
    learning_rate: float


def learning_rate(step: int, settings: Train) -> float:
    """The learning rate at optimizer step 1..steps: linear warm-up from 0, as in the paper's code, times the decay."""
    done = step - 1
    warm = min(done / settings.warmup, 1.0) if settings.warmup else 1.0
    match settings.learning_rate_decay:
        case "constant":
            decay = 1.0
        case "linear":
            decay = 1 - done / settings.steps
        case "cosine":
            decay = 0.5 * (1 + math.cos(math.pi * done / settings.steps))
    return settings.learning_rate * warm * decay


def after_rewinds(settings: Train, count: int) -> Train:
    """The settings of the steps after so many rewinds: with another seed, from (seed, "rewind", count), unless 0."""
    return settings.model_copy(update={"seed": rng.torch_seed(settings.seed, "rewind", count)}) if count else settings


def train(
    learner: Learner, denoiser: Denoiser, batches: Batches, settings: Train, gradient: Gradient | None = None
) -> Iterator[Record]:
    """Take the optimizer steps from `learner.step + 1` to `settings.steps`; yield after each update of the average.

    `denoiser` wraps `learner.network`, or a compiled form of it. The randomness of a step comes from
    (seed, "train", step, micro-batch), so a run that is stopped and resumed takes the same steps. Processes that share
    the work pass their `gradient`; without it this process computes all micro-batches.
    """
    learner.network.train()
    parameters, averages = list(learner.network.parameters()), list(learner.average.parameters())
    gradient = gradient or Tree(parameters, range(settings.accumulate), Group(batches.device))
    update_averages = get_ema_multi_avg_fn(settings.ema_decay)  # w <- decay w + (1 - decay) w_trained
    for step in range(learner.step + 1, settings.steps + 1):
        rate = learning_rate(step, settings)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        loss = gradient.compute(partial(_loss, denoiser, batches, settings, step))
        norm = nn.utils.clip_grad_norm_(
            parameters, settings.grad_clip or math.inf, foreach=batches.device.type != "mps"
        )
        learner.optimizer.step()
        learner.optimizer.zero_grad()
        if step % settings.ema_every == 0:
            update_averages(averages, parameters, step)
        learner.step = step
        yield Record(step, loss, norm, rate)


def _loss(denoiser: Denoiser, batches: Batches, settings: Train, step: int, micro: int) -> Tensor:
    """The share of a micro-batch in the mean loss of a step."""
    device = batches.device
    generator = rng.torch_generator(device, settings.seed, "train", step, micro)
    x_0, labels = batches.get(step, micro, generator)
    t = torch.randint(1, denoiser.process.timesteps + 1, (len(x_0),), generator=generator, device=device)
    eps = denoiser.process.prior(tuple(x_0.shape), generator)
    torch.manual_seed(rng.torch_seed(settings.seed, "dropout", step, micro))  # dropout has no generator of its own
    with autocast(device, settings.precision):
        return loss_of(denoiser.given(labels), x_0, t, eps, settings) / settings.accumulate
