"""List and remove the resumable states of stages."""

from collections.abc import Iterator

from lab.experiment import state


def clean(remove: bool) -> Iterator[str]:
    """One line for each state folder, then a total. With `remove`, delete all except unfinished work."""
    folders = state.folders()
    if not folders:
        yield "there is no resumable state"
        return
    kept = freed = 0
    names, statuses = [folder.path.name for folder in folders], [folder.status for folder in folders]
    widths = max(map(len, names)), max(map(len, statuses))
    for folder, name, status in zip(folders, names, statuses, strict=True):
        size, age = folder.size, state.age(folder.modified)
        unfinished = folder.unfinished
        removed = remove and not unfinished and folder.remove()
        freed, kept = (freed + size, kept) if removed else (freed, kept + size)
        if removed:
            note = "removed"
        elif unfinished:
            note = f"kept: the same experiment continues it (to remove it, delete .ckpt/{name})"
        else:
            note = "kept: a stage uses it now" if remove else ""
        yield f"{name:<{widths[0]}}  {status:<{widths[1]}}  {_megabytes(size):>11}  {age:>10}  {note}".rstrip()
    yield f"freed {_megabytes(freed)}, kept {_megabytes(kept)}" if remove else f"total: {_megabytes(kept)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
