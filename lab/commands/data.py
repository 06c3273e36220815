"""Examine a folder or .zip of images, and set it as the source in params.yaml."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ddpm import files, params
from ddpm.data import folder
from ddpm.data.pack import unusable
from ddpm.data.sources import TEST_FRACTION
from ddpm.errors import UsageError
from ddpm.params import Params
from lab import stage
from lab.commands import recipe
from lab.experiment import dvcfile

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 32  # pixels: the largest size that is suggested, because two CPU cores train it in minutes
_GREY_MODES = ("1", "L", "LA", "I", "F")  # and 16-bit modes, which begin with I
_GREY = 8  # the largest difference between the channels of a grey pixel, because JPEG rounds
_LISTED = 12  # the most classes, sizes... that a line of the report names


@dataclass(frozen=True)
class Survey:
    """The images in a folder or .zip."""

    where: Path
    sizes: Counter[tuple[int, int]]  # (width, height)
    modes: Counter[str]
    colour: int  # number of images that are not grey
    classes: Counter[str]
    splits: Counter[str]  # empty if the images have no split
    others: Counter[str]  # suffixes of files that are not images
    digest: str

    @property
    def count(self) -> int:
        """The number of images."""
        return self.sizes.total()


def survey(where: Path) -> Survey:
    """Decode every image, as stage prepare does. Raises `UsageError` that names the images that cannot be used."""
    listed = folder.listing(where)
    sizes, modes, colour, bad = Counter[tuple[int, int]](), Counter[str](), 0, list[str]()
    with stage.bar("read", len(listed.images), "img") as bar:
        for index in range(len(listed.images)):
            try:
                picture = listed[index]
            except UsageError as error:
                bad.append(str(error))
            else:
                sizes[picture.size] += 1
                modes[picture.mode] += 1
                colour += _in_colour(picture)
            bar.update()
    if bad:
        raise unusable(bad)
    classes = Counter(image.label for image in listed.images)
    splits = Counter[str](image.split for image in listed.images if image.split)
    others = Counter(path.suffix.lower() or path.name for path in listed.others)
    return Survey(where, sizes, modes, colour, classes, splits, others, listed.digest())


def _in_colour(picture: "Image.Image") -> bool:
    if picture.mode in _GREY_MODES or picture.mode.startswith("I;"):
        return False
    values = np.asarray(picture.convert("RGB")).astype(int)
    return bool((values.max(2) - values.min(2) > _GREY).any())


def report(found: Survey) -> Iterator[str]:
    """The lines that describe the images."""
    sizes = Counter({f"{width}x{height}": count for (width, height), count in found.sizes.items()})
    modes = _listed(found.modes)
    splits = _listed(found.splits) or f"none: {TEST_FRACTION:.0%} of each class become test images"
    widths, heights = ({size[axis] for size in found.sizes} for axis in (0, 1))
    where = found.where.relative_to(Path.cwd()) if found.where.is_relative_to(Path.cwd()) else found.where
    yield f"{where}: {found.count} image{'s' * (found.count != 1)}"
    yield f"  sizes    {_listed(sizes)}"
    if len(sizes) > 1:
        yield f"           widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}"
    yield f"  colours  {found.colour} in colour, {found.count - found.colour} grey; modes: {modes}"
    yield f"  classes  {'none' if _has_no_class(found) else _listed(found.classes)}"
    yield f"  splits   {splits}"
    if found.others:
        yield f"  ignored  {_listed(found.others)}; images are {', '.join(folder.SUFFIXES)}"


def _listed(counts: Counter[str]) -> str:
    named = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_LISTED))
    return named + (f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else "")


def current(path: Path) -> Params:
    """The settings of params.yaml, with any value of the keys that `change` sets. Raises `UsageError`."""
    valid = {"source": "folder", "path": "any", "digest": None, "image_size": 4096, "channels": 3}
    return params.check(yaml.safe_load(recipe.edited(path.read_text(encoding="utf-8"), {"data": valid}, str(path))))


def source(path: Path) -> Path:
    """The folder or .zip that params.yaml names. Raises `UsageError` if it names none."""
    named = params.load(path)
    if named.data.path is None:
        raise UsageError(f"{path}: data.source = {named.data.source!r} is no folder; name yours: `ddpm data PATH`")
    return dvcfile.data_root(named.runtime.data_root) / named.data.path


def change(path: Path, found: Survey, chosen: dict[str, Any], write: bool) -> Iterator[str]:
    """Set the images as the source in params.yaml, which keeps its comments; yield lines that describe the settings.

    The image size and the channels are the chosen ones, else those of params.yaml, else the suggested ones.
    """
    settings, text = current(path), path.read_text(encoding="utf-8")
    present = {key: value for key, value in dict(yaml.safe_load(text)["data"]).items() if value is not None}
    suggested = suggestion(found, len(settings.network.multipliers))
    where = stored_path(found.where, dvcfile.data_root(settings.runtime.data_root))
    named = {"source": "folder", "path": where, "digest": found.digest}
    kept = {key: present[key] for key in (*suggested, "fit") if key in present}
    data = named | suggested | kept | chosen
    edited = recipe.edited(text, {"data": data}, str(path))
    yield f"{path}"
    for key, value in data.items():
        yield f"  data.{key:<11} {value}{'' if key in chosen else _origin(key, kept, suggested)}"
    notes = [*_of_fit(found, data["image_size"], data["fit"]), *_of_classes(found, settings)]
    yield from (f"  note: {line}" for line in notes)
    if not write:
        yield f"{path} is not written, because of --dry-run"
    elif edited == text:
        yield f"{path} has these settings already"
    else:
        files.write_text(path, edited)
        yield f"{path} is written; " + ("read the notes before `dvc repro`" if notes else "run `dvc repro`")


def _origin(key: str, kept: Mapping[str, Any], suggested: Mapping[str, int]) -> str:
    """A remark on the origin of a value that no option sets; `kept` holds the values of params.yaml."""
    if key not in kept:
        return " (suggested)" if key in suggested else ""
    differs = key in suggested and kept[key] != suggested[key]
    return f" (as before; the images suggest {suggested[key]})" if differs else " (as before)"


def suggestion(found: Survey, levels: int) -> dict[str, int]:
    """The image size and the channels for the images, and for a network with so many levels.

    The size is at most the median of the shorter sides, and at most `LARGEST`.
    """
    factor = 2 ** (levels - 1)  # each level but the last halves the image
    shorter = float(np.median([min(size) for size in found.sizes.elements()]))
    size = max(int(min(shorter, LARGEST)) // factor, 1) * factor
    return {"image_size": size, "channels": 3 if found.colour else 1}


def stored_path(where: Path, root: Path) -> str:
    """The value of a path in params.yaml: relative to the folder of datasets, or absolute if it is elsewhere."""
    absolute, root = (Path(os.path.normpath(path.absolute())) for path in (where, root))
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def _of_fit(found: Survey, size: int, fit: str) -> Iterator[str]:
    """Notes on the effect of data.fit on the images."""
    oblong = sum(count for (width, height), count in found.sizes.items() if width != height)
    small = sum(count for (width, height), count in found.sizes.items() if max(width, height) < size)
    if fit == "pad" and oblong:
        yield f"fit pad adds black borders to {_oblong(oblong)}; --fit crop cuts them instead"
    if fit == "resize" and oblong:
        yield f"fit resize distorts {_oblong(oblong)}; --fit crop cuts them instead"
    if fit == "pad" and small:
        images = f"{small} image{'s' * (small != 1)}"
        yield f"fit pad adds black borders to {images} below {size} pixels; --fit crop enlarges them instead"


def _oblong(count: int) -> str:
    return f"{count} images that are not square" if count != 1 else "1 image that is not square"


def _of_classes(found: Survey, settings: Params) -> Iterator[str]:
    """Notes on settings that need two classes."""
    if len(found.classes) >= 2:
        return
    if settings.evaluate.extractor == "classifier":
        yield (
            f"evaluate.extractor: classifier needs at least two classes, and there {_number(found)}: put each class "
            "into its own folder, or set evaluate.extractor: inception (downloads 91 MB)"
        )
    if settings.network.conditional:
        yield "network.conditional: a class adds no information below two classes: set network.conditional: false"


def _number(found: Survey) -> str:
    return "are none" if _has_no_class(found) else "is only one"


def _has_no_class(found: Survey) -> bool:
    return found.classes.keys() == {folder.NO_CLASS}
