"""Signs that an extractor is useless: it does not separate images, and so gives beautiful metrics."""

import torch

from ddpm import mapped
from ddpm.errors import UsageError
from ddpm.evaluation.features import Features

_LEAST_RANK = 1.1  # one direction holds 95% of the variance
_BLOCK = 2**14  # images


def least_accuracy(classes: int) -> float:
    """The accuracy on test images that a classifier must have: a quarter of the way from chance, 1 / classes, to 1."""
    chance = 1 / classes
    return chance + (1 - chance) / 4


def inaccuracy(accuracy: float | None, classes: int) -> list[str]:
    """The warning of a classifier whose accuracy is below `least_accuracy`, if it is; Inception's accuracy is None."""
    least = least_accuracy(classes)
    if accuracy is None or accuracy >= least:
        return []
    return [
        "the extractor is useless, and so are its metrics: the classifier's accuracy on test images is "
        f"{accuracy:.2f}, below {least:.2f}, a quarter of the way from chance to 1. Change evaluate.classifier "
        "(learning_rate, steps, channels), or use evaluate.extractor inception"
    ]


def collapse(real: Features) -> list[str]:
    """The warning of features that are equal for all images or vary in one direction, if they do.

    The number of directions is the participation ratio of the eigenvalues of the covariance, their squared sum divided
    by the sum of their squares. A good classifier of two classes needs only one direction.
    """
    if len(real) < 2:
        return []
    _, covariance = real.moments
    total, squares = covariance.trace(), (covariance**2).sum()
    least = _LEAST_RANK if real.logits.shape[1] > 2 else 0.0
    if squares > 0 and total**2 / squares >= least:
        return []
    how = "vary in one direction only" if squares > 0 else "are equal"
    return [f"the extractor is useless, and so are its metrics: the features of all training images {how}"]


def check_finite(features: Features, remedy: str) -> None:
    """Raise `UsageError`, which ends with the remedy, if a feature or a logit is not a finite number."""
    for values in (features.features, features.logits):
        if not all(torch.isfinite(block).all() for block in mapped.blocks(values, _BLOCK)):
            raise UsageError(f"the extractor's features of real images are not finite numbers; {remedy}")
