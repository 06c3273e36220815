"""The loss curve: windows of steps, and where training diverged."""

import pytest
import torch

from ddpm.training.curve import COLUMNS, DivergedError, LossCurve
from ddpm.training.loop import Record
from tests.training.runs import CPU


def record(step: int, loss: float | None = None, norm: float = 2.0) -> Record:
    """Step k has the loss k and the learning rate k / 100."""
    value = float(step) if loss is None else loss
    return Record(step, torch.tensor(value), torch.tensor(norm * step), step / 100)


def test_points_are_means_over_windows_at_their_last_step() -> None:
    curve = LossCurve(3, CPU)
    ended = [curve.add(record(step)) for step in range(1, 7)]
    assert ended == [False, False, True, False, False, True]
    assert [list(point) for point in curve.points()] == [list(COLUMNS)] * 2
    assert [list(point.values()) for point in curve.points()] == [
        pytest.approx([3, 2, 4, 0.03]),
        pytest.approx([6, 5, 10, 0.06]),
    ]


def test_window_still_open_is_the_last_point() -> None:
    curve = LossCurve(3, CPU)
    for step in range(1, 6):
        curve.add(record(step))
    assert list(curve.points()[-1].values()) == pytest.approx([5, 4.5, 9, 0.05])
    curve.add(record(6))
    assert [point["step"] for point in curve.points()] == [3, 6]


def test_curve_without_steps_has_no_points() -> None:
    assert LossCurve(3, CPU).points() == []


@pytest.mark.parametrize("stop", range(8))
def test_restored_curve_continues_bit_for_bit(stop: int) -> None:
    whole, first, second = (LossCurve(3, CPU) for _ in range(3))
    records = [record(step, 1 / step) for step in range(1, 9)]
    for r in records:
        whole.add(r)
    for r in records[:stop]:
        first.add(r)
    second.restore(first.state())
    for r in records[stop:]:
        second.add(r)
    assert second.points() == whole.points()


def test_state_has_the_same_shape_before_and_after_the_first_point() -> None:
    curve = LossCurve(1, CPU)
    assert {name: tuple(tensor.shape) for name, tensor in curve.state().items()} == {"points": (0, 4), "window": (6,)}
    curve.add(record(1))
    assert {name: tuple(tensor.shape) for name, tensor in curve.state().items()} == {"points": (1, 4), "window": (6,)}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_loss_that_is_not_finite_is_reported_with_its_first_step(bad: float) -> None:
    curve = LossCurve(3, CPU)
    for step in range(1, 9):
        curve.add(record(step, bad if step in (4, 8) else None))
    with pytest.raises(DivergedError, match="at step 4") as caught:
        curve.check()
    assert caught.value.step == 4


def test_gradient_that_is_not_finite_is_reported_too() -> None:
    curve = LossCurve(3, CPU)
    curve.add(record(1))
    curve.add(record(2, norm=float("inf")))
    with pytest.raises(DivergedError, match="at step 2"):
        curve.check()


def test_divergence_survives_a_restart() -> None:
    first, second = LossCurve(3, CPU), LossCurve(3, CPU)
    first.add(record(1, float("nan")))
    second.restore(first.state())
    with pytest.raises(DivergedError, match="at step 1"):
        second.check()


def test_finite_training_passes_the_check() -> None:
    curve = LossCurve(3, CPU)
    for step in range(1, 9):
        curve.add(record(step, 1e30))
    curve.check()
    assert [point["loss"] for point in curve.points()] == pytest.approx([1e30] * 3)
