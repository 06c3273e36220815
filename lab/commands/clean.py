"""List and remove the resumable states of trainings."""

from collections.abc import Iterator

from lab.experiment import state


def clean(remove: bool) -> Iterator[str]:
    """One line for each state folder. With `remove`, delete all folders except those of unfinished trainings."""
    folders = state.folders()
    if not folders:
        yield "there is no resumable state"
    for folder in folders:
        status, size, age = folder.status, folder.size / 1e6, state.age(folder.modified)
        removed = remove and not status.startswith("unfinished") and folder.remove()
        yield f"{folder.path.name}  {status:<26}  {size:8.1f} MB  {age:>10}{'  removed' if removed else ''}"
