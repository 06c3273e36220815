"""Pictures inside a page, as data URIs."""

import base64
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """The attributes of an <img> element."""

    uri: str
    width: int  # pixels
    height: int
    alt: str


def from_file(path: Path, alt: str) -> Picture:
    """Embed an image file unchanged."""
    with Image.open(path) as image:
        return picture(path.read_bytes(), image.get_format_mimetype() or "", image.size, alt)


def picture(contents: bytes, mimetype: str, size: tuple[int, int], alt: str) -> Picture:
    """Embed an encoded image of a size (width, height) in pixels."""
    return Picture(f"data:{mimetype};base64,{base64.b64encode(contents).decode()}", *size, alt)
