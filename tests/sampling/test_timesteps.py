"""Which times a sampler visits, against lists written by hand."""

from typing import Literal

import pytest

from ddpm.params import Sample
from ddpm.sampling.timesteps import timesteps

Spacing = Literal["leading", "trailing", "linspace", "quad"]


def spaced(settings: Sample, spacing: Spacing, steps: int, chain: int) -> list[int]:
    return timesteps(settings.model_copy(update={"spacing": spacing, "steps": steps}), chain)


@pytest.mark.parametrize(
    ("spacing", "steps", "chain", "expected"),
    [
        ("leading", 5, 1000, [801, 601, 401, 201, 1]),
        ("leading", 3, 10, [7, 4, 1]),
        ("trailing", 5, 1000, [1000, 800, 600, 400, 200]),
        ("trailing", 3, 10, [10, 7, 3]),
        ("linspace", 4, 10, [10, 7, 4, 1]),
        ("linspace", 3, 1000, [1000, 501, 1]),
        ("quad", 3, 1000, [801, 201, 1]),
        ("quad", 5, 500, [401, 226, 101, 26, 1]),
    ],
)
def test_spacing_gives_these_times(
    sample_settings: Sample, spacing: Spacing, steps: int, chain: int, expected: list[int]
) -> None:
    assert spaced(sample_settings, spacing, steps, chain) == expected


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_as_many_steps_as_the_chain_visit_every_time(sample_settings: Sample, spacing: Spacing) -> None:
    for chain in (2, 7, 20, 1000):
        assert spaced(sample_settings, spacing, chain, chain) == list(range(chain, 0, -1))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quad"])
def test_times_fall_within_the_chain_and_are_at_most_steps(sample_settings: Sample, spacing: Spacing) -> None:
    for chain in (2, 7, 20, 63):
        for steps in range(1, chain + 1):
            times = spaced(sample_settings, spacing, steps, chain)
            assert times == sorted(set(times), reverse=True)
            assert 1 <= times[-1] <= times[0] <= chain
            assert len(times) == steps or (spacing == "quad" and len(times) < steps)


def test_quad_is_dense_near_the_image_and_merges_times_that_coincide(sample_settings: Sample) -> None:
    assert spaced(sample_settings, "quad", 20, 20) == [17, 15, 13, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
