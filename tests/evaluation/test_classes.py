"""The classes of samples, with features whose logits are written down."""

import pytest
import torch

from ddpm.evaluation.classes import agreement
from ddpm.evaluation.fidelity import Features


def of_classes(*classes: int) -> Features:
    """Features of images that the classifier takes for these of four classes."""
    logits = torch.randn(len(classes), 4, generator=torch.Generator().manual_seed(0))
    logits[torch.arange(len(classes)), torch.tensor(classes)] = 9
    return Features(torch.zeros(len(classes), 5), logits)


def test_equal_shares_have_no_distance_whatever_the_counts() -> None:
    assert agreement(of_classes(0, 1), of_classes(1, 0, 0, 1), None) == {"class_distance": 0.0}


def test_distance_is_the_part_that_would_have_to_change_class() -> None:
    found = agreement(of_classes(0, 0, 0, 1), of_classes(0, 1, 2, 2), None)
    assert found["class_distance"] == pytest.approx(0.5)
    assert agreement(of_classes(0, 0), of_classes(3), None)["class_distance"] == pytest.approx(1)


def test_label_agreement_counts_the_samples_of_the_class_asked_for() -> None:
    asked = torch.tensor([0, 1, 2, 3, 3])
    found = agreement(of_classes(0, 1, 1, 3, 0), of_classes(0, 1), asked)
    assert found["label_agreement"] == pytest.approx(0.6)
