"""Image files in a folder or a .zip: their labels, splits and contents."""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from ddpm.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
NO_CLASS = "images"  # label of the images in no folder
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # of the contents: Pillow runs programs for some other formats


@dataclass(frozen=True)
class ImageFile:
    """One file: its path inside the folder or archive, and the split and label that follow from the path."""

    path: PurePosixPath
    split: Literal["train", "test"] | None
    label: str


@dataclass(frozen=True)
class Files:
    """The image files of a folder or an archive, in the order of their paths."""

    where: Path
    archive: zipfile.ZipFile | None
    names: Mapping[PurePosixPath, str]  # name in the archive by unpacked path
    images: tuple[ImageFile, ...]
    others: tuple[PurePosixPath, ...] = ()  # files without the suffix of an image

    def __getitem__(self, index: int) -> "Image.Image":
        """The decoded picture, rotated by its orientation tag. Raises `UsageError` that names the file."""
        from PIL import Image, ImageOps, UnidentifiedImageError

        path = self.images[index].path
        content = self.read(path)
        try:
            picture = Image.open(BytesIO(content), formats=FORMATS)
            ImageOps.exif_transpose(picture, in_place=True)  # also decodes it
        except UnidentifiedImageError:
            raise UsageError(f"{self.where}/{path}: its contents are not an image") from None
        except Exception as error:  # decoders raise errors of any kind on damaged bytes
            raise UsageError(f"{self.where}/{path}: {error}") from error
        return picture

    def read(self, path: PurePosixPath) -> bytes:
        """The bytes of a file. Raises `UsageError` that names it."""
        try:
            return (self.where / path).read_bytes() if self.archive is None else self.archive.read(self.names[path])
        except Exception as error:  # a damaged, encrypted or unsupported archive raises errors of any kind
            raise UsageError(f"{self.where}/{path}: {error}") from error

    def digest(self) -> str:
        """The sha256 of all paths and contents, the same for a folder and for its .zip."""
        digest = hashlib.sha256()
        for image in self.images:
            content = self.read(image.path)
            digest.update(
                f"{image.split} {image.label} {image.path.name} {len(content)}\n".encode(errors="surrogateescape")
            )
            digest.update(content)
        return digest.hexdigest()


def listing(where: Path) -> Files:
    """Find the images of a folder or .zip, in the order of their paths.

    A single folder around all others, common in archives, is skipped. `train/` and `test/` are splits if both exist;
    one alone is skipped as a single folder. The next folder is the label; images in no folder have the label
    `NO_CLASS`. Hidden files are skipped, and links are followed. Raises `UsageError` if there are no images.
    """
    archive, names = None, dict[PurePosixPath, str]()
    if where.is_dir():
        inside = (Path(folder, name) for folder, _, files in os.walk(where, followlinks=True) for name in files)
        # A broken link is kept, so that reading it raises an error that names it.
        paths = [PurePosixPath(path.relative_to(where)) for path in inside if path.is_file() or path.is_symlink()]
    elif where.suffix.lower() == ".zip" and where.is_file():
        try:
            archive = zipfile.ZipFile(where)
        except Exception as error:
            raise UsageError(f"{where}: {error}") from error
        names = {_unpacked(entry.filename): entry.filename for entry in archive.infolist() if not entry.is_dir()}
        paths = list(names)
    else:
        advice = "; give the folder that contains it" if where.is_file() else ""
        raise UsageError(f"{where} is neither a folder nor a .zip{advice}")
    shown = sorted(path for path in paths if not _hidden(path))
    found = [path for path in shown if path.suffix.lower() in SUFFIXES]
    if not found:
        raise UsageError(f"{where} holds no images ({', '.join(SUFFIXES)}) among its {len(paths)} files")
    others = tuple(path for path in shown if path.suffix.lower() not in SUFFIXES)
    return Files(where, archive, names, tuple(_described(found)), others)


def _unpacked(name: str) -> PurePosixPath:
    """The path after unpacking. Some archivers write ./a, /a or a\\b; of equal paths the last one wins."""
    return PurePosixPath(name.replace("\\", "/").lstrip("/"))


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _described(paths: list[PurePosixPath]) -> Iterator[ImageFile]:
    tops = {path.parts[0] for path in paths}
    below = {path.parts[1] for path in paths if len(path.parts) > 2}
    alone = tops if len(tops) == 1 else set()
    only_folders = all(len(path.parts) > 2 for path in paths)
    depth = 1 if alone and (only_folders or {"train", "test"} <= below or alone & {"train", "test"}) else 0
    has_splits = {"train", "test"} <= (below if depth else tops)
    for path in paths:
        folders = path.parts[depth:-1]
        split: Literal["train", "test"] | None = None
        if has_splits:
            if not folders or folders[0] not in ("train", "test"):
                raise UsageError(f"{path} lies beside train/ and test/: move it into one of them")
            split = "train" if folders[0] == "train" else "test"
            folders = folders[1:]
        yield ImageFile(path, split, folders[0] if folders else NO_CLASS)
