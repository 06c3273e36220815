"""Which classes the samples show."""

import pytest
import torch

from ddpm.evaluation.classes import agreement
from ddpm.evaluation.fidelity import Features


def seen(*classes: int) -> Features:
    """Images that the classifier takes for these of three classes."""
    logits = 5 * torch.nn.functional.one_hot(torch.tensor(classes), 3).float() - 9
    return Features(torch.zeros(len(classes), 4), logits)


def test_equal_shares_have_distance_zero_whatever_the_numbers_of_images() -> None:
    assert agreement(seen(0, 1, 1, 2), seen(2, 1, 0, 1, 1, 0, 2, 1), None) == {"class_distance": 0}


def test_distance_is_the_share_that_must_change_its_class() -> None:
    real = seen(0, 0, 1, 2)
    assert agreement(seen(0, 1, 1, 2), real, None)["class_distance"] == pytest.approx(1 / 4)
    assert agreement(seen(1, 1, 1, 1, 1), real, None)["class_distance"] == pytest.approx(3 / 4)
    assert agreement(seen(1), seen(0, 2), None)["class_distance"] == pytest.approx(1)


def test_agreement_is_the_part_whose_class_is_the_one_asked_for() -> None:
    result = agreement(seen(0, 1, 2, 2, 1), seen(0, 1), torch.tensor([0, 1, 2, 1, 0]))
    assert result["label_agreement"] == pytest.approx(3 / 5)
