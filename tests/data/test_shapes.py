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
    assert digest == "e89d05f272f9cc430d8158928a5b47f9762ce997da50f84bacc8b9b469a2f9c3"


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
    np.testing.assert_allclose([min(areas), max(areas)], [5.5**2, 9.5**2], rtol=0.03)


@pytest.mark.parametrize("index", range(3))
def test_every_shape_has_the_moment_of_inertia_of_its_class(index: int) -> None:
    pixels = np.arange(shapes.SIZE)
    for number in range(40):
        share = covered(shapes.draw(0, index + 3 * number))
        area = share.sum()
        row, column = (share.sum(1) @ pixels / area, share.sum(0) @ pixels / area)
        inertia = (share * ((pixels[:, None] - row) ** 2 + (pixels[None, :] - column) ** 2)).sum() / area**2
        assert inertia == pytest.approx(INERTIA[shapes.CLASSES[index]], rel=0.03), number


def test_shapes_turn_and_move() -> None:
    """The mean over many images of a class has no outline: it is brightest near the centre, and symmetric."""
    mean = np.mean([covered(shapes.draw(0, 2 + 3 * number)) for number in range(600)], axis=0)
    assert mean[12:20, 12:20].min() > 0.6
    np.testing.assert_allclose(mean, mean.T, atol=0.12)
    np.testing.assert_allclose(mean, mean[::-1], atol=0.12)
