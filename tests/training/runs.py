"""A small training run, as the stage `train` builds it."""

from dataclasses import dataclass

import torch

from ddpm.data.batches import Batches
from ddpm.data.dataset import Dataset
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.unet import UNet
from ddpm.params import Diffusion, Train, UNetNetwork
from ddpm.training.loop import Learner

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """What `loop.train` takes."""

    learner: Learner
    denoiser: Denoiser
    batches: Batches


def start(
    train: Train, network: UNetNetwork, diffusion: Diffusion, device: torch.device = CPU, weights_seed: int = 0
) -> Run:
    """A run before its first step, on ten random images (3, 8, 8)."""
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(weights_seed)
    unet = UNet(network, 3, 8, 3, 1).to(device).to(memory_format=torch.channels_last)
    dataset = Dataset(images, torch.zeros(10, dtype=torch.int64), ["one"], "", {})
    denoiser = Denoiser(unet, process.from_settings(diffusion, device), diffusion)
    batches = Batches(dataset, train, diffusion.value_range, device)
    return Run(Learner.start(unet, train), denoiser, batches)
