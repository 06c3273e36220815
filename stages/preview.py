"""Samples while training, for people to look at. They draw from generators of their own and change no output."""

import torch
from PIL import Image

from ddpm import images
from ddpm.network.modelfile import Description, assemble
from ddpm.params import Sample
from ddpm.reporting import figures
from ddpm.sampling import blocks

_COUNT = 16
_STEPS = 20


def grid(network: torch.nn.Module, description: Description, device: torch.device) -> Image.Image:
    """Sixteen samples by a short DDIM chain, always from the same noise, so that previews show progress."""
    diffusion = description.diffusion
    settings = Sample(
        seed=0,
        count=_COUNT,
        batch_size=_COUNT,
        sampler="ddim",
        steps=min(_STEPS, diffusion.timesteps),
        spacing="trailing",
        eta=0.0,
        sigma=None,
        clip=True,
        guidance=None,
    )
    *_, last = blocks.trajectory(assemble(description, network, "", device), settings, 0, _COUNT)
    return figures.grid(images.to_uint8(last.x_0, diffusion.value_range).cpu(), columns=8)
