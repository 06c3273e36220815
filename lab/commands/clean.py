"""List and remove the resumable states of trainings."""

from collections.abc import Iterator

from lab.experiment import state


def clean(remove: bool) -> Iterator[str]:
    """One line for each state folder, then a total. With `remove`, delete all except those of unfinished trainings."""
    folders = state.folders()
    if not folders:
        yield "there is no resumable state"
        return
    kept = freed = 0
    for folder in folders:
        status, size, age = folder.status, folder.size, state.age(folder.modified)
        unfinished = status.startswith("unfinished")
        removed = remove and not unfinished and folder.remove()
        freed, kept = (freed + size, kept) if removed else (freed, kept + size)
        if removed:
            note = "removed"
        elif unfinished:
            note = f"kept: the same experiment continues it (to remove it, delete .ckpt/{folder.path.name})"
        else:
            note = "kept: a training uses it now" if remove else ""
        yield f"{folder.path.name}  {status:<26}  {_megabytes(size):>11}  {age:>10}  {note}".rstrip()
    yield f"freed {_megabytes(freed)}, kept {_megabytes(kept)}" if remove else f"total: {_megabytes(kept)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
