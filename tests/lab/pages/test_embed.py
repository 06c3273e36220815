"""Pictures inside a page."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.pages import embed
from lab.pages.embed import Embedded


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """The hardest picture to encode."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def contents(embedded: Embedded) -> tuple[str, bytes]:
    kind, _, encoded = embedded.uri.removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(encoded)


def opened(embedded: Embedded) -> Image.Image:
    picture = Image.open(io.BytesIO(contents(embedded)[1]))
    picture.load()
    return picture


def test_a_small_picture_is_embedded_as_it_is(tmp_path: Path) -> None:
    noise(20, 10).save(tmp_path / "small.png")
    embedded = embed.embed(tmp_path / "small.png")
    assert contents(embedded) == ("image/png", (tmp_path / "small.png").read_bytes())
    assert (embedded.width, embedded.height) == (20, 10)


def test_a_large_grid_fits_and_keeps_its_shape(tmp_path: Path) -> None:
    noise(2582, 1292).save(tmp_path / "grid.png", compress_level=0)
    embedded = embed.embed(tmp_path / "grid.png")
    kind, encoded = contents(embedded)
    assert kind == "image/webp"
    assert embed.LARGEST / 4 < len(encoded) <= embed.LARGEST
    assert opened(embedded).size == (embedded.width, embedded.height)
    assert embedded.width / embedded.height == pytest.approx(2582 / 1292, rel=0.01)


def test_a_smooth_picture_keeps_its_width_up_to_the_widest(tmp_path: Path) -> None:
    for width in (900, 2600):
        Image.linear_gradient("L").resize((width, 100)).convert("RGB").save(tmp_path / f"{width}.bmp")
        assert embed.embed(tmp_path / f"{width}.bmp").width == min(width, 1600)


@pytest.fixture
def animation(tmp_path: Path) -> Path:
    frames = [noise(120, 60, seed) for seed in range(4)]
    frames[0].save(
        tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=[80, 80, 80, 2000], loop=0
    )
    return tmp_path / "moving.gif"


@pytest.mark.parametrize(("largest", "kind"), [(100_000, "image/gif"), (10_000, "image/webp")])
def test_an_animation_keeps_moving_at_its_pace(largest: int, kind: str, animation: Path) -> None:
    embedded = embed.embed(animation, largest)
    assert contents(embedded)[0] == kind
    assert len(contents(embedded)[1]) <= largest
    moving = opened(embedded)
    assert moving.n_frames == 4  # type: ignore[attr-defined]
    durations = []
    for place in range(4):
        moving.seek(place)
        moving.load()
        durations.append(moving.info["duration"])
    assert durations == [80, 80, 80, 2000]
    assert moving.info["loop"] == 0


def test_the_last_frame_stands_for_an_animation(animation: Path) -> None:
    still = opened(embed.last_frame(animation))
    with Image.open(animation) as moving:
        moving.seek(3)
        assert np.array_equal(np.asarray(still), np.asarray(moving.convert("RGB")))
    assert len(contents(embed.last_frame(animation, 900))[1]) <= 900
