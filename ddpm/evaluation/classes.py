"""The classes of the samples, as the classifier predicts them."""

import torch
from torch import Tensor

from ddpm import mapped
from ddpm.evaluation.features import Features

_BLOCK = 2**14  # images


def agreement(samples: Features, real: Features, labels: Tensor | None) -> dict[str, float]:
    """Compare the classes of the samples with those of real images, and with labels, int64 (N,), if given.

    `class_distance` is the total variation between the class shares, from 0 (equal) to 1. `label_agreement` is the
    share of the samples whose most likely class is their label.
    """
    predicted = samples.logits.argmax(1)
    result = {"class_distance": float((shares(samples) - shares(real)).abs().sum() / 2)}
    if labels is not None:
        result["label_agreement"] = float((predicted == labels).double().mean())
    return result


def shares(features: Features) -> Tensor:
    """The share of each class among the images, float64 (classes,)."""
    counts = torch.zeros(features.logits.shape[1], dtype=torch.int64)
    for logits in mapped.blocks(features.logits, _BLOCK):
        counts += torch.bincount(logits.argmax(1), minlength=len(counts))
    return counts.double() / len(features)


def agreement_by_class(samples: Features, labels: Tensor) -> list[float | None]:
    """For each class the share of the samples with this label whose most likely class it is; None without samples."""
    agrees = (samples.logits.argmax(1) == labels).double()
    of_class = [agrees[labels == label] for label in range(samples.logits.shape[1])]
    return [float(found.mean()) if len(found) else None for found in of_class]
