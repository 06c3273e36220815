"""Classifier-free guidance (Ho & Salimans 2022)."""

from dataclasses import replace

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser


def guide(denoiser: Denoiser, labels: Tensor, weight: float) -> Denoiser:
    """A denoiser that predicts (1 + w) eps(x_t, t, label) - w eps(x_t, t), equation (6).

    `labels` is the class of each image, int64 (N,). At a given x_t every kind of prediction is linear in eps, so the
    network's outputs are combined directly. A learned variance is the one given the label.
    """
    network = denoiser.network
    learned = denoiser.settings.variance != "fixed"

    def guided(x_t: Tensor, index: Tensor) -> Tensor:
        conditional = network(x_t, index, labels).float()
        if weight == 0:
            return conditional
        push = weight * (conditional - network(x_t, index).float())
        if learned:
            predicted, _ = push.chunk(2, dim=1)
            push = torch.cat([predicted, torch.zeros_like(predicted)], dim=1)
        return conditional + push

    return replace(denoiser, network=guided)
