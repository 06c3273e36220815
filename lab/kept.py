"""Work on many images that processes share and that continues after an interruption.

Finished batches are kept in the state folder of the stage as they are made. Process 0 has the folder; the others
compute their batches, which process 0 receives and writes.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ddpm import files
from ddpm.params import Runtime
from ddpm.processes import Group
from lab import stage
from lab.experiment import dvcfile, state
from lab.experiment.rows import Batch, Rows
from lab.experiment.state import RowsFolder


class Work:
    """The work of a stage, as one of the processes does it."""

    def __init__(self, name: str, group: Group, folder: RowsFolder | None) -> None:
        self._name, self._group, self._folder = name, group, folder

    def file(self, path: Path, make: Callable[[Path], object]) -> None:
        """Have process 0 write a tensor file once, with `make`, and copy it to `path`; return when it is there."""
        if self._folder:
            kept = self._folder.path / path.name
            if kept.exists():
                files.read_tensors(kept)  # raises an error if it is damaged, because a copy would be, too
            else:
                make(kept)
            with files.replacing(path) as temporary:
                shutil.copyfile(kept, temporary)
        self._group.from_first(None)

    def rows(
        self, description: str, totals: Mapping[str, int], batches: Callable[[str, int], Iterator[Batch]]
    ) -> dict[str, dict[str, Tensor]] | None:
        """Compute the rows of several sets of images, each with a name and a number of images.

        `batches(name, done)` yields, on process 0 only, the batches of a set after the first `done` images, which are
        kept already. Returns all rows of each set, memory-mapped; None on the other processes.
        """
        rows = self._opened(totals)
        kept = self._group.from_first({name: rows[name].done for name in rows})
        done, total = sum(kept.values()), sum(totals.values())
        if done:
            stage.say(f"{self._name}: continues from image {done:,} of {total:,}")
        with stage.bar(description, total, "img", done) as bar:
            for name in (name for name in totals if kept[name] < totals[name]):
                for batch in batches(name, kept[name]):
                    before = rows[name].done
                    rows[name].append(batch)
                    bar.update(rows[name].done - before)
        return {name: rows[name].tensors() for name in rows} if self._folder else None

    def _opened(self, totals: Mapping[str, int]) -> dict[str, Rows]:
        if not self._folder:
            return {}
        return {name: Rows.create(self._folder.path / name, total) for name, total in totals.items()}


@contextmanager
def work(name: str, runtime: Runtime, group: Group, inputs: Iterable[Path]) -> Iterator[Work]:
    """Open the state folder of stage `name` and yield its work. The stage is finished when the block ends.

    `inputs` are the files that the work depends on. Raises `UsageError` if the processes would do different work.
    """
    machine = {"torch": torch.__version__, "device": group.device.type}
    machine |= {f"input {number}": dvcfile.digest_of_file(path) for number, path in enumerate(inputs)}
    fingerprint = state.fingerprint(name, set(), machine)
    group.agree(fingerprint)
    if group.rank > 0:
        yield Work(name, group, None)
        return
    with state.rows_folder(name, fingerprint, runtime.resume) as folder:
        yield Work(name, group, folder)
        folder.finish()
