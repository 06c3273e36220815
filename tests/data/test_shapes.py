"""The drawn shapes: the same bytes on every machine, whole shapes of three classes, varied colours."""

import hashlib
import math
from collections import Counter

import numpy as np
import pytest

from ddpm.data import shapes

INERTIA = {"circle": 1 / (2 * math.pi), "square": 1 / 6, "triangle": math.sqrt(3) / 9}  # polar, of unit area


def drawn(count: int, seed: int = 0) -> np.ndarray:
    return np.stack([shapes.draw(seed, index) for index in range(count)])


def covered(image: np.ndarray) -> np.ndarray:
    """The share of each pixel (H, W) that the shape covers, computed from the colours."""
    counts = Counter(map(tuple, image.reshape(-1, 3).tolist()))
    background, shape = (np.array(colour, float) for colour, _ in counts.most_common(2))
    contrast = shape - background
    return (image - background) @ contrast / (contrast @ contrast)


def test_images_have_known_bytes() -> None:
    digest = hashlib.sha256(drawn(60).tobytes()).hexdigest()
    assert digest == "a114a99f33b2367fba517fe406b38194658616a75b91ef9bf6e8878a8b9ce2dd"


def test_an_image_depends_on_the_seed_and_its_index_alone() -> None:
    np.testing.assert_array_equal(shapes.draw(3, 7), shapes.draw(3, 7))
    assert not np.array_equal(shapes.draw(3, 7), shapes.draw(4, 7))
    assert not np.array_equal(shapes.draw(3, 7), shapes.draw(3, 10))  # of the same class


def test_images_are_uint8_in_colour() -> None:
    images = drawn(30)
    assert (images.dtype, images.shape) == (np.uint8, (30, shapes.SIZE, shapes.SIZE, 3))
    assert (images.max(3) != images.min(3)).any((1, 2)).all()


@pytest.mark.parametrize("index", range(3))
def test_every_class_has_the_same_range_of_areas_and_no_shape_is_cut(index: int) -> None:
    areas = [covered(shapes.draw(0, index + 3 * number)).sum() / math.pi for number in range(200)]
    np.testing.assert_allclose([min(areas), max(areas)], [7**2, 10**2], rtol=0.03)


@pytest.mark.parametrize("index", range(3))
def test_every_shape_has_the_moment_of_inertia_of_its_class(index: int) -> None:
    pixels = np.arange(shapes.SIZE)
    for number in range(40):
        share = covered(shapes.draw(0, index + 3 * number))
        area = share.sum()
        row, column = (share.sum(1) @ pixels / area, share.sum(0) @ pixels / area)
        inertia = (share * ((pixels[:, None] - row) ** 2 + (pixels[None, :] - column) ** 2)).sum() / area**2
        assert inertia == pytest.approx(INERTIA[shapes.CLASSES[index]], rel=0.03), number


def test_shapes_are_anywhere_in_the_image() -> None:
    shares = [covered(shapes.draw(0, index)) for index in range(300)]
    for axis in (0, 1):
        centres = [np.average(np.arange(shapes.SIZE), weights=share.sum(axis)) for share in shares]
        assert min(centres) < 11.5
        assert max(centres) > 19.5
        assert np.mean(centres) == pytest.approx(15.5, abs=0.5)


def test_squares_turn_by_up_to_twenty_degrees() -> None:
    shares = [covered(shapes.draw(0, 1 + 3 * number)) for number in range(200)]
    sides = [(share.max(0) > 0.5).sum() / np.sqrt(share.sum()) for share in shares]  # of the box around the square
    assert min(sides) == pytest.approx(1, abs=0.06)
    assert max(sides) == pytest.approx(math.cos(0.35) + math.sin(0.35), abs=0.06)
