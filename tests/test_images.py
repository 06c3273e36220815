"""The conversion between uint8 and float is exact at the ends, invertible, and rounds to the nearest level."""

import pytest
import torch

from ddpm import images

RANGES = [(-1.0, 1.0), (0.0, 1.0), (-3.0, 0.5)]
ALL = torch.arange(256, dtype=torch.uint8).view(2, 8, 16)
each_range = pytest.mark.parametrize("value_range", RANGES)


@each_range
def test_every_grey_level_is_restored(value_range: tuple[float, float]) -> None:
    floats = images.to_float(ALL, value_range)
    assert floats.dtype == torch.float32
    restored = images.to_uint8(floats, value_range)
    assert restored.dtype == torch.uint8
    assert restored.equal(ALL)


@each_range
def test_grey_levels_span_the_range_in_equal_steps(value_range: tuple[float, float]) -> None:
    low, high = value_range
    expected = torch.linspace(low, high, 256, dtype=torch.float64).float().view(2, 8, 16)
    torch.testing.assert_close(images.to_float(ALL, value_range), expected, rtol=0, atol=1e-6)


def test_paper_scaling_is_x_over_127_5_minus_one() -> None:
    torch.testing.assert_close(images.to_float(ALL, (-1.0, 1.0)), ALL.float() / 127.5 - 1, rtol=0, atol=2e-7)


@each_range
def test_values_outside_the_range_are_clamped(value_range: tuple[float, float]) -> None:
    low, high = value_range
    outside = torch.tensor([low - 100, low - 0.01, high + 0.01, high + 100])
    assert images.to_uint8(outside, value_range).tolist() == [0, 0, 255, 255]


@each_range
def test_values_between_levels_are_rounded_to_the_nearest(value_range: tuple[float, float]) -> None:
    step = (value_range[1] - value_range[0]) / 255
    levels = images.to_float(ALL, value_range)
    for shift in (-0.45, 0.45):
        assert images.to_uint8(levels + shift * step, value_range).equal(ALL)
    assert images.to_uint8(levels.flatten()[:-1] + 0.55 * step, value_range).equal(ALL.flatten()[1:])


def test_bfloat16_is_converted_to_float32_before_rounding() -> None:
    values = torch.linspace(-1, 1, 1000).bfloat16()
    assert images.to_uint8(values, (-1.0, 1.0)).equal(images.to_uint8(values.float(), (-1.0, 1.0)))
