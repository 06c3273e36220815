"""Images of any size and mode are fitted to a square."""

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from ddpm.data.fit import fit
from tests.data.conftest import Settings


def picture(values: object) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint8))


@pytest.mark.parametrize("how", ["pad", "resize", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("size", [(3, 5), (20, 9), (8, 8), (1, 50)])
def test_every_image_becomes_channels_first_and_square(
    settings: Settings, how: str, channels: int, mode: str, size: tuple[int, int]
) -> None:
    fitted = fit(Image.new(mode, size), settings(fit=how, channels=channels))
    assert fitted.shape == (channels, 8, 8)
    assert fitted.dtype == np.uint8


@pytest.mark.parametrize("how", ["pad", "resize", "crop"])
def test_an_image_of_the_right_size_is_unchanged(settings: Settings, how: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit(picture(values), settings(fit=how, channels=3)), values.transpose(2, 0, 1))


def test_pad_centres_on_black_and_never_enlarges(settings: Settings) -> None:
    fitted = fit(picture([[1, 2], [3, 4], [5, 6], [7, 8]]), settings())
    expected = np.zeros((1, 8, 8), np.uint8)
    expected[0, 2:6, 3:5] = [[1, 2], [3, 4], [5, 6], [7, 8]]
    np.testing.assert_array_equal(fitted, expected)


def test_pad_shrinks_larger_images_in_proportion(settings: Settings) -> None:
    (fitted,) = fit(Image.new("L", (32, 16), 200), settings())  # 32 wide, 16 high
    expected = np.zeros((8, 8), np.uint8)
    expected[2:6] = 200
    np.testing.assert_array_equal(fitted, expected)


def test_resize_stretches_to_the_square(settings: Settings) -> None:
    (fitted,) = fit(picture([[50] * 8 + [250] * 8] * 3), settings(fit="resize"))
    assert (fitted[:, :3] < 60).all()
    assert (fitted[:, 5:] > 240).all()


def test_resize_enlarges_small_images(settings: Settings) -> None:
    (fitted,) = fit(Image.new("L", (2, 3), 90), settings(fit="resize"))
    assert (fitted == 90).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_crop_keeps_the_centre(settings: Settings, transposed: bool) -> None:
    values = np.array([[10] * 8 + [200] * 16 + [10] * 8] * 16, np.uint8)  # 16 high, 32 wide
    (fitted,) = fit(picture(values.T if transposed else values), settings(fit="crop"))
    middle = (fitted if not transposed else fitted.T)[:, 1:-1]  # the filter mixes at the edges
    assert (middle >= 200).all()


def test_crop_scales_the_shorter_side_to_the_size(settings: Settings) -> None:
    (fitted,) = fit(picture([[0] * 4 + [240] * 4] * 4), settings(fit="crop"))  # 4 high: enlarged twice
    assert (fitted[:, :3] < 20).all()
    assert (fitted[:, 5:] > 220).all()


@pytest.mark.parametrize("how", ["pad", "resize", "crop"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_shrinking_is_antialiased(settings: Settings, how: Literal["pad", "resize", "crop"], mode: str) -> None:
    board = picture(255 * (np.indices((64, 64)).sum(0) % 2))
    (fitted,) = fit(board.convert(mode), settings(fit=how))
    assert abs(fitted.astype(int) - 127).max() < 10


def test_colour_is_converted_to_its_luminance(settings: Settings) -> None:
    values = [fit(Image.new("RGB", (8, 8), colour), settings())[0, 0, 0] for colour in ("red", "lime", "blue")]
    np.testing.assert_allclose(values, [76, 150, 29], atol=1)  # 0.299, 0.587, 0.114 of 255


def test_grey_becomes_three_equal_channels(settings: Settings) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(fit(picture(values), settings(channels=3)), np.stack([values] * 3))


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bit_grey_keeps_its_upper_eight_bits(settings: Settings, mode: str) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    image = Image.fromarray(deep if mode == "I;16" else deep.astype(np.int32))
    assert image.mode == mode
    np.testing.assert_array_equal(fit(image, settings())[0], deep // 256)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 0), (128, 100), (255, 200)])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_become_black(settings: Settings, mode: str, alpha: int, expected: int) -> None:
    colour = (200, alpha) if mode == "LA" else (200, 200, 200, alpha)
    fitted = fit(Image.new(mode, (8, 8), colour), settings(channels=3))
    np.testing.assert_allclose(fitted.astype(int), expected, atol=1)


def test_the_transparent_colour_of_a_palette_becomes_black(settings: Settings) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 255, 255, 10, 20, 30])
    assert fit(image, settings(channels=3))[:, 0, 0].tolist() == [10, 20, 30]
    image.info["transparency"] = 1
    assert fit(image, settings(channels=3))[:, 0, 0].tolist() == [0, 0, 0]
