"""Pictures inside a page."""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.pages import embed


@pytest.mark.parametrize(("suffix", "mimetype"), [("png", "image/png"), ("gif", "image/gif")])
def test_a_file_is_embedded_as_it_is_with_its_type_and_size(suffix: str, mimetype: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)).save(path)
    picture = embed.from_file(path, "Noise")
    assert picture.uri == f"data:{mimetype};base64,{base64.b64encode(path.read_bytes()).decode()}"
    assert (picture.width, picture.height, picture.alt) == (20, 10, "Noise")
