"""Conversion of pictures of any size and mode to square uint8 arrays."""

from typing import TYPE_CHECKING

import numpy as np

from ddpm.params import Data

if TYPE_CHECKING:
    from PIL import Image


def fit(picture: "Image.Image", settings: Data) -> np.ndarray:
    """Fit a picture to `settings`: uint8 (channels, image_size, image_size).

    `pad` keeps the proportions, never enlarges, and centres the picture on black. `resize` stretches it to the square.
    `crop` scales the shorter side to the size and keeps the centre.
    """
    from PIL import Image, ImageOps

    antialiased = Image.Resampling.BICUBIC  # Pillow widens the filter when it shrinks
    size = (settings.image_size, settings.image_size)
    picture = _in_mode(picture, "L" if settings.channels == 1 else "RGB")
    if settings.fit == "crop":
        picture = ImageOps.fit(picture, size, antialiased)
    elif settings.fit == "resize":
        picture = picture.resize(size, antialiased)
    elif settings.fit == "pad":
        if max(picture.size) > settings.image_size:
            shrunk = [max(round(side * settings.image_size / max(picture.size)), 1) for side in picture.size]
            picture = picture.resize((shrunk[0], shrunk[1]), antialiased)
        left, top = ((settings.image_size - side) // 2 for side in picture.size)
        picture = picture.crop((-left, -top, size[0] - left, size[1] - top))  # black outside the picture
    values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def _in_mode(picture: "Image.Image", mode: str) -> "Image.Image":
    """Convert to grey or RGB. Transparent pixels become black; 16-bit grey keeps its upper eight bits."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    elif picture.mode == "I":
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return picture if picture.mode == mode else picture.convert(mode)
