"""Pictures inside a page, as data URIs."""

import base64
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ddpm.errors import FileError


@dataclass(frozen=True)
class Picture:
    """The attributes of an <img> element."""

    uri: str
    width: int  # pixels
    height: int
    alt: str


def from_file(path: Path, alt: str) -> Picture:
    """Embed an image file unchanged. Raises `FileError` if it cannot be shown."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path) as image,
        ):  # it warns of a size that is too large
            image.load()
            contents = path.read_bytes()
            if image.format == "GIF" and not contents.endswith(b";"):  # whose end the decoder does not need
                raise ValueError("it is cut short")
            return picture(contents, image.get_format_mimetype() or "", image.size, alt)
    except Exception as error:  # the decoders raise errors of many kinds
        raise FileError(f"{path} is not a complete picture: {error}", path) from error


def picture(contents: bytes, mimetype: str, size: tuple[int, int], alt: str) -> Picture:
    """Embed an encoded image of a size (width, height) in pixels."""
    return Picture(f"data:{mimetype};base64,{base64.b64encode(contents).decode()}", *size, alt)
