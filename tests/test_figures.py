"""Grids, animations, strips and the loss curve."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ddpm import figures

POINTS = [{"step": 50 * n, "loss": 1 / n, "gradient_norm": 2 / n} for n in range(1, 6)]
SNAPSHOTS = [{"step": 100 * n, "fid": 9 / n, "is": 8.0} for n in range(1, 3)]


def pictures(count: int, channels: int, height: int = 16, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 250, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def tile(picture: Image.Image, row: int, column: int, height: int, width: int) -> np.ndarray:
    """The pixels of one image of a grid, whose gaps are two pixels wide."""
    top, left = 2 + row * (height + 2), 2 + column * (width + 2)
    return np.asarray(picture)[top : top + height, left : left + width]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_grid_shows_images_row_by_row_each_pixel_enlarged(channels: int, mode: str) -> None:
    images = pictures(5, channels)
    picture = figures.grid(images, columns=3)
    assert (picture.mode, picture.size) == (mode, (3 * 50 + 2, 2 * 34 + 2))  # 16 x 24 doubled: the larger side is 48
    for index in range(5):
        pixels = tile(picture, index // 3, index % 3, 32, 48)[::2, ::2].reshape(16, 24, channels)
        assert np.array_equal(pixels, images[index].permute(1, 2, 0).numpy()), index
    enlarged = tile(picture, 0, 0, 32, 48)
    assert np.array_equal(enlarged[::2, ::2], enlarged[1::2, 1::2])


def test_grid_is_white_where_there_is_no_image() -> None:
    picture = figures.grid(pictures(4, 1), columns=3)
    assert tile(picture, 1, 1, 32, 48).min() == 255
    assert tile(picture, 1, 0, 32, 48).max() < 255
    assert np.asarray(picture)[:2].min() == np.asarray(picture)[:, 50:52].min() == 255


@pytest.mark.parametrize(("size", "enlarged"), [(1, 48), (8, 48), (28, 56), (47, 94), (48, 48), (64, 64)])
def test_grid_enlarges_by_the_smallest_integer_that_reaches_48_pixels(size: int, enlarged: int) -> None:
    assert figures.grid(pictures(1, 1, size, size), columns=1).size == (enlarged + 4, enlarged + 4)


@pytest.mark.parametrize(("pixels", "factor"), [(4 * 60 * 90, 1), (4 * 60 * 90 - 1, 2), (4 * 20 * 30, 3)])
def test_grid_reduces_large_images_to_the_given_number_of_pixels(pixels: int, factor: int) -> None:
    images = pictures(4, 3, 60, 90)
    picture = figures.grid(images, 2, pixels)
    assert picture.size == (2 * (90 // factor + 2) + 2, 2 * (60 // factor + 2) + 2)
    mean = images[3, :, :factor, :factor].float().mean((1, 2)).round().numpy()
    assert np.array_equal(tile(picture, 1, 1, 60 // factor, 90 // factor)[0, 0], mean)


def test_animation_shows_each_frame_as_a_grid_and_holds_the_last(tmp_path: Path) -> None:
    frames = pictures(12, 1).reshape(3, 4, 1, 16, 24)
    figures.animation(frames, 2, tmp_path / "moving.gif")
    with Image.open(tmp_path / "moving.gif") as moving:
        shown = [(np.asarray(frame.convert("L")), frame.info["duration"]) for frame in ImageSequence.Iterator(moving)]
        assert moving.info["loop"] == 0
    assert [duration for _, duration in shown] == [80, 80, 2000]
    for (pixels, _), images in zip(shown, frames, strict=True):
        assert np.array_equal(pixels, np.asarray(figures.grid(images, 2)))


def test_animation_of_large_images_has_the_given_number_of_pixels_in_all_frames(tmp_path: Path) -> None:
    figures.animation(pictures(6, 3, 64, 64).reshape(6, 1, 3, 64, 64), 1, tmp_path / "moving.gif", 6 * 32 * 32)
    assert read(tmp_path / "moving.gif").size == (32 + 4, 32 + 4)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_a_grid_of_any_count_is_at_least_as_wide_as_high(count: int, columns: int) -> None:
    assert figures.columns_of(count) == columns


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_picture_has_its_own_size_and_pixels(channels: int, mode: str) -> None:
    image = pictures(1, channels)[0]
    picture = figures.picture(image)
    assert (picture.mode, picture.size) == (mode, (24, 16))
    assert np.array_equal(np.asarray(picture).reshape(16, 24, channels), image.permute(1, 2, 0).numpy())


def test_save_writes_the_picture_and_no_other_file(tmp_path: Path) -> None:
    picture = figures.picture(pictures(1, 3)[0])
    figures.save(picture, tmp_path / "new" / "picture.png")
    assert np.array_equal(np.asarray(read(tmp_path / "new" / "picture.png")), np.asarray(picture))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def draw_strip(path: Path, channels: int = 1) -> None:
    figures.strip(path, "Title", ["$t=1$", "$t=9$"], [("a", pictures(2, channels)), ("b", pictures(2, channels) // 2)])


def draw_loss(path: Path) -> None:
    figures.loss_curve(POINTS, [], {}, path)


def draw_loss_and_snapshots(path: Path) -> None:
    figures.loss_curve(POINTS, SNAPSHOTS, {}, path)


@pytest.mark.parametrize("draw", [draw_strip, draw_loss, draw_loss_and_snapshots])
def test_equal_inputs_give_equal_bytes_under_any_matplotlib_settings(
    draw: Callable[[Path], None], tmp_path: Path
) -> None:
    draw(tmp_path / "plain.png")
    settings = {
        "axes.grid": True,
        "axes.facecolor": "black",
        "font.size": 20,
        "lines.linestyle": ":",
        "xtick.color": "r",
    }
    with mpl.rc_context(settings):
        draw(tmp_path / "with_settings.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "with_settings.png").read_bytes()


def test_figures_leave_the_users_matplotlib_settings_alone(tmp_path: Path) -> None:
    with mpl.rc_context({"axes.grid": True, "font.size": 20}):
        before = dict(mpl.rcParams)
        draw_loss(tmp_path / "loss.png")
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("channels", [1, 3])
def test_strip_shows_the_exact_pixels_of_every_image(channels: int, tmp_path: Path) -> None:
    draw_strip(tmp_path / "strip.png", channels)
    strip = np.asarray(read(tmp_path / "strip.png").convert("RGB"))
    for image in (*pictures(2, channels), *(pictures(2, channels) // 2)):
        colour = image[:, 8, 12].expand(3).numpy()
        assert (strip == colour).all(axis=2).any()


@pytest.mark.parametrize(("columns", "label"), [(8, "training\nimage"), (13, "$t=100$"), (6, "a")])
def test_strip_has_no_empty_band_below_its_images(columns: int, label: str, tmp_path: Path) -> None:
    black = [(label, torch.zeros(columns, 1, 8, 8, dtype=torch.uint8))] * 2
    figures.strip(tmp_path / "strip.png", "Title", ["1"] * columns, black)
    rows = np.flatnonzero(np.asarray(read(tmp_path / "strip.png").convert("L")).min(axis=1) == 0)
    below = read(tmp_path / "strip.png").height - 1 - rows[-1]
    assert 3 <= below <= 12
    assert rows[0] <= 12  # the title is not cut off


def test_strip_grows_with_its_rows_and_names_no_software(tmp_path: Path) -> None:
    for count in (1, 4):
        figures.strip(tmp_path / f"{count}.png", "Title", ["1", "2"], [("row", pictures(2, 1))] * count)
    low, high = (read(tmp_path / f"{count}.png") for count in (1, 4))
    assert low.width == high.width
    assert low.height + 200 < high.height
    assert not {"Software", "Creation Time"} & set(low.info)


def test_loss_curve_changes_with_every_value(tmp_path: Path) -> None:
    draw_loss(tmp_path / "loss.png")
    for key in ("step", "loss", "gradient_norm"):
        other = [*POINTS[:-1], {**POINTS[-1], key: 3 * POINTS[-1][key]}]
        figures.loss_curve(other, [], {}, tmp_path / "other.png")
        assert (tmp_path / "other.png").read_bytes() != (tmp_path / "loss.png").read_bytes(), key


def test_losses_of_the_final_weights_are_lines_in_the_loss_curve(tmp_path: Path) -> None:
    written = set()
    for index, final in enumerate([{}, {"training images": 0.3}, {"training images": 0.3, "test images": 0.4}]):
        figures.loss_curve(POINTS, [], final, tmp_path / f"{index}.png")
        written.add((tmp_path / f"{index}.png").read_bytes())
    assert len(written) == 3


def test_loss_curve_of_an_untrained_model_has_no_curve_and_the_same_size(tmp_path: Path) -> None:
    draw_loss(tmp_path / "loss.png")
    for final in ({}, {"training images": 0.3, "test images": 0.4}):
        figures.loss_curve([], [], final, tmp_path / "empty.png")
        assert read(tmp_path / "empty.png").size == read(tmp_path / "loss.png").size


def test_snapshots_add_a_panel_that_changes_with_their_fid(tmp_path: Path) -> None:
    draw_loss(tmp_path / "loss.png")
    draw_loss_and_snapshots(tmp_path / "more.png")
    figures.loss_curve(POINTS, [*SNAPSHOTS[:-1], {**SNAPSHOTS[-1], "fid": 7.0}], {}, tmp_path / "other.png")
    loss, more, other = (read(tmp_path / f"{name}.png") for name in ("loss", "more", "other"))
    assert (more.width, other.size) == (loss.width, more.size)
    assert more.height > loss.height + 100
    assert not np.array_equal(np.asarray(more), np.asarray(other))


def test_a_curve_that_is_zero_everywhere_is_drawn_without_a_warning(tmp_path: Path) -> None:
    figures.loss_curve([{"step": 1, "loss": 0.0, "gradient_norm": 0.0}], [], {}, tmp_path / "loss.png")
    assert read(tmp_path / "loss.png").width > 100
