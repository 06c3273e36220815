"""The steps of a training, and the way back from a loss that is not finite: train.on_divergence.

With `rewind`, training goes back to the last multiple of train.rewind_every before the first such step, and draws other
batches, times and noise from there. The steps do not depend on runtime.checkpoint_every, on interruptions or on the
number of processes, and neither does the result.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ddpm.params import Runtime, Train
from ddpm.processes import Group
from ddpm.training import checkpoint
from ddpm.training.curve import DivergedError, LossCurve
from ddpm.training.loop import Learner, Record

MOST = 5  # rewinds of a training


class Saved(Protocol):
    """The states of a training on the disk."""

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Write the state of a step, with `write(path)`."""

    def keep(self, step: int) -> None:
        """Keep the state of a step, which is written, until another one is kept."""

    def kept(self, step: int) -> Path:
        """The path of the kept state of a step; no such file exists if it is not kept."""

    def go_back(self, step: int, bad: int, write: Callable[[Path], None]) -> None:
        """Write the state of a step, from which training continues instead of those up to step `bad`."""


@dataclass(frozen=True)
class Steps:
    """The steps of a training on one of the processes that share it. Only process 0 has the loss curve and `saved`."""

    take: Callable[[int], Iterator[Record]]  # the steps after `learner.step`, with the batches after so many rewinds
    learner: Learner
    losses: LossCurve
    settings: Train
    runtime: Runtime
    group: Group
    saved: Saved | None
    save: Callable[[Path], None]  # writes the state of the training
    say: Callable[[str], object]  # tells people

    def records(self) -> Iterator[tuple[Record, bool]]:
        """Take the steps; yield each record, which is in the loss curve already, and whether it ended a window.

        A record at which a state may be saved or a window ends is yielded only if all losses so far are finite. Raises
        `DivergedError` if they are not and training cannot go back.
        """
        self._keep()
        while bad := (yield from self._until_bad()):
            self._go_back(bad)

    def _until_bad(self) -> Generator[tuple[Record, bool], None, int]:
        """Take steps to the end or until a loss is found that is not finite; return the step of that loss, or 0."""
        for record in self.take(len(self.learner.rewinds)):
            ended = self.saved is not None and self.losses.add(record)
            bad = self._first_bad(record.step)
            if bad:
                return bad
            self._keep()
            yield record, ended
        return 0

    def _first_bad(self, step: int) -> int:
        """The first step that was not finite, or 0; looked up only at the steps where something is saved or logged."""
        every = (self.runtime.log_every, self.runtime.checkpoint_every, self.settings.rewind_every)
        if step < self.settings.steps and all(one is None or step % one for one in every):
            return 0
        if self.settings.on_divergence == "rewind":
            return self.group.from_first(self.losses.first_bad())
        if self.saved:
            self.losses.check()
        return 0

    def _keep(self) -> None:
        """Keep the state of this step if training may go back to it."""
        step, every = self.learner.step, self.settings.rewind_every
        if self.saved and every and step % every == 0 and not self.saved.kept(step).exists():
            self.saved.save(step, self.save)
            self.saved.keep(step)

    def _go_back(self, bad: int) -> None:
        """Load the last kept state before the step `bad`, and record that."""
        assert self.settings.rewind_every is not None
        step, rewinds = (bad - 1) // self.settings.rewind_every * self.settings.rewind_every, self.learner.rewinds
        if len(rewinds) == MOST:
            raise DivergedError(bad, f", after {MOST} rewinds")
        path = self.saved.kept(step) if self.saved else None
        kept = self.group.from_first(path if path and path.exists() else None)
        if kept is None:
            raise DivergedError(
                bad, f", and the state of step {step} is not kept (-S runtime.resume=false starts anew)"
            )
        checkpoint.load(kept, self.learner, self.losses)
        self.learner.rewinds = [*rewinds, (bad, step)]
        if self.saved:
            self.saved.go_back(step, bad, self.save)
        self.say(
            f"train: the loss or its gradient is not finite at step {bad}: goes back to step {step}, with other "
            f"batches (rewind {len(rewinds) + 1} of at most {MOST})"
        )
