"""The classes of the samples, compared with those of the data and with the labels."""

import pytest
import torch

from ddpm.evaluation.classes import agreement, agreement_by_class
from ddpm.evaluation.fidelity import Features


def classified(*classes: int) -> Features:
    """Features of images that the classifier assigns to these of three classes."""
    logits = 5 * torch.nn.functional.one_hot(torch.tensor(classes), 3).float() - 9
    return Features(torch.zeros(len(classes), 4), logits)


def test_equal_shares_have_distance_zero_for_different_numbers_of_images() -> None:
    assert agreement(classified(0, 1, 1, 2), classified(2, 1, 0, 1, 1, 0, 2, 1), None) == {"class_distance": 0}


def test_distance_is_the_share_of_samples_that_would_have_to_change_class() -> None:
    real = classified(0, 0, 1, 2)
    assert agreement(classified(0, 1, 1, 2), real, None)["class_distance"] == pytest.approx(1 / 4)
    assert agreement(classified(1, 1, 1, 1, 1), real, None)["class_distance"] == pytest.approx(3 / 4)
    assert agreement(classified(1), classified(0, 2), None)["class_distance"] == pytest.approx(1)


def test_agreement_is_the_share_of_samples_classified_as_their_label() -> None:
    result = agreement(classified(0, 1, 2, 2, 1), classified(0, 1), torch.tensor([0, 1, 2, 1, 0]))
    assert result["label_agreement"] == pytest.approx(3 / 5)


def test_agreement_by_class_is_none_for_a_class_without_samples() -> None:
    labels = torch.tensor([0, 0, 0, 2, 2])
    assert agreement_by_class(classified(0, 0, 1, 2, 0), labels) == [pytest.approx(2 / 3), None, 0.5]
