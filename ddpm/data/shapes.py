"""The source `shapes`: circles, squares and triangles in colour, drawn here.

The drawing uses only additions, products, quotients and square roots, whose results IEEE 754 defines. The images are
therefore the same bytes on every machine.
"""

import colorsys
import math

import numpy as np

from ddpm import rng

CLASSES = ["circle", "square", "triangle"]
COUNT = 4000
SIZE = 32  # pixels

_HALF = math.sqrt(3) / 2
_NORMALS = {  # unit vectors (x, y), each perpendicular to a side
    "square": np.array([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)]),
    "triangle": np.array([(0.0, 1.0), (_HALF, -0.5), (-_HALF, -0.5)]),
}
_TURN = 0.18  # tan(angle / 2) of the largest rotation, 20 degrees
_INSIDE = {"square": 0.886, "triangle": 0.778}  # distance of a side from the centre, for the area of the unit circle


def draw(seed: int, index: int) -> np.ndarray:
    """Draw image `index`, uint8 (32, 32, 3): an antialiased shape of class `CLASSES[index % 3]` on a pale background.

    Its colours, size, position and rotation come from (seed, "shapes", index).
    """
    name = CLASSES[index % len(CLASSES)]
    numbers = rng.numpy_generator(seed, "shapes", index).random(10)
    hue, other_hue, saturation, value, pale, light, size, right, down, turn = map(float, numbers)
    shape = _rgb(hue, 0.55 + 0.4 * saturation, 0.65 + 0.35 * value)
    background = _rgb(hue + 0.3 + 0.4 * other_hue, 0.1 + 0.3 * pale, 0.8 + 0.2 * light)
    radius = 7 + 3 * size
    free = SIZE / 2 - 2 * _INSIDE["triangle"] * radius  # keeps the corners of a triangle in the image
    pixels = np.arange(SIZE) - (SIZE - 1) / 2
    x, y = pixels[None, :] - free * (2 * right - 1), pixels[:, None] - free * (2 * down - 1)
    covered = np.clip(0.5 - _distance(name, x, y, radius, 2 * turn - 1), 0, 1)[..., None]
    return np.rint(255 * (background + covered * (shape - background))).astype(np.uint8)


def _distance(name: str, x: np.ndarray, y: np.ndarray, radius: float, turn: float) -> np.ndarray:
    """The distance of each pixel from the outline, in pixels; negative inside."""
    if name == "circle":
        return np.sqrt(x * x + y * y) - radius
    half = turn * _TURN
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    sides = [x * (cos * a - sin * b) + y * (sin * a + cos * b) for a, b in _NORMALS[name]]
    return np.maximum.reduce(sides) - _INSIDE[name] * radius


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
