"""Which classes the samples show, in the classifier's eyes."""

import torch
from torch import Tensor

from ddpm.evaluation.features import Features


def agreement(samples: Features, real: Features, asked: Tensor | None) -> dict[str, float]:
    """How the samples' classes compare with real images', and with those asked for, int64 (N,), if any.

    `class_distance` is the total variation between the shares of the classes, 0 (the same) to 1; `label_agreement`
    the part of the samples whose most likely class is the one asked for.
    """
    seen = samples.logits.argmax(1)
    result = {"class_distance": float((shares(samples) - shares(real)).abs().sum() / 2)}
    if asked is not None:
        result["label_agreement"] = float((seen == asked).double().mean())
    return result


def shares(features: Features) -> Tensor:
    """The part of the images that is of each class, float64 (classes,)."""
    counts = torch.bincount(features.logits.argmax(1), minlength=features.logits.shape[1])
    return counts.double() / len(features)
