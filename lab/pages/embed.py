"""Pictures inside a page: as they are where they are small, else encoded anew until they fit."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

LARGEST = 240_000  # bytes of a picture; a page of seven, with its plots, stays under 3 MB
WIDEST = 1600  # pixels of a picture that is encoded anew
_SHRINK = 0.8
_QUALITIES = (85, 70, 55)


@dataclass(frozen=True)
class Embedded:
    """A picture as a page has it."""

    uri: str  # its contents
    width: int  # pixels
    height: int


def embed(path: Path, largest: int = LARGEST, widest: int = WIDEST) -> Embedded:
    """The picture, moving or not, in at most so many bytes; where it is encoded anew, at most so wide."""
    contents = path.read_bytes()
    with Image.open(path) as picture:
        if len(contents) <= largest:
            return _embedded(contents, picture.get_format_mimetype() or "", picture.size)
        frames = [(frame.convert("RGB"), frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(picture)]
    return _shrunk([frame for frame, _ in frames], [duration for _, duration in frames], largest, widest)


def last_frame(path: Path, largest: int = LARGEST) -> Embedded:
    """What an animation ends with, for readers who want nothing to move."""
    with Image.open(path) as animation:
        animation.seek(animation.n_frames - 1)  # type: ignore[attr-defined]
        return _shrunk([animation.convert("RGB")], [0], largest, WIDEST, lossless=True)


def _shrunk(
    frames: list[Image.Image], durations: list[int], largest: int, widest: int, lossless: bool = False
) -> Embedded:
    """WebP of lower and lower quality, then of smaller and smaller size."""
    width = min(frames[0].width, widest)
    if lossless and len(contents := _webp(frames, durations, 100, True)) <= largest:
        return _embedded(contents, "image/webp", frames[0].size)
    while True:
        height = max(round(frames[0].height * width / frames[0].width), 1)
        smaller = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
        for quality in _QUALITIES:
            if len(contents := _webp(smaller, durations, quality, False)) <= largest or width == 1:
                return _embedded(contents, "image/webp", (width, height))
        width = max(int(width * _SHRINK), 1)


def _webp(frames: list[Image.Image], durations: list[int], quality: int, lossless: bool) -> bytes:
    written = io.BytesIO()
    more = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0} if frames[1:] else {}
    frames[0].save(written, "WEBP", quality=quality, lossless=lossless, **more)
    return written.getvalue()


def _embedded(contents: bytes, kind: str, size: tuple[int, int]) -> Embedded:
    return Embedded(f"data:{kind};base64,{base64.b64encode(contents).decode()}", *size)
