"""Pictures inside a page."""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.errors import FileError
from lab.pages import embed


@pytest.mark.parametrize(("suffix", "mimetype"), [("png", "image/png"), ("gif", "image/gif")])
def test_a_file_is_embedded_as_it_is_with_its_type_and_size(suffix: str, mimetype: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)).save(path)
    picture = embed.from_file(path, "Noise")
    assert picture.uri == f"data:{mimetype};base64,{base64.b64encode(path.read_bytes()).decode()}"
    assert (picture.width, picture.height, picture.alt) == (20, 10, "Noise")


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_error_names_a_picture_that_cannot_be_shown(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    first, *others = map(Image.fromarray, noise)
    first.save(path, save_all=suffix == "gif", append_images=others)
    whole = path.read_bytes()
    flipped = whole[:600] + bytes([whole[600] ^ 1]) + whole[601:]
    for content in (b"", b"some text", whole[:20], whole[: len(whole) * 3 // 4], *([flipped] * (suffix == "png"))):
        path.write_bytes(content)
        with pytest.raises(FileError, match=f"^{path} is not a complete picture: .+") as caught:
            embed.from_file(path, "Noise")
        assert "\n" not in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=f"^{path} is not a complete picture: .+"):
        embed.from_file(path, "Noise")
