"""Image files for the tests: encoded pictures, and folders and archives of them."""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def grey(level: int, size: tuple[int, int] = (3, 5)) -> bytes:
    """A PNG of one grey level; the size is (width, height)."""
    return encoded(Image.new("L", size, level))


def folder_of(where: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files, by their paths below `where`."""
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    return where


def zip_of(where: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files into an archive, in the order given."""
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return where
