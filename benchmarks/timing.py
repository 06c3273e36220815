"""Durations of cases that alternate within one run, so that a change of the machine's speed meets all of them.

A ratio is the median of the ratios of each round. It is steadier than the ratio of two medians on a busy machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the least and the greatest of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Durations:
    """The seconds of one call of each case in each round."""

    seconds: Mapping[str, Sequence[float]]

    def speed(self, name: str, amount: float) -> Spread:
        """`amount` per second, if one call of the case does that amount."""
        return Spread.of([amount / seconds for seconds in self.seconds[name]])

    def ratio(self, name: str, base: str) -> Spread:
        """How many times as fast as the case `base` a case is, both for one call."""
        return Spread.of([b / a for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])

    def fastest(self, names: Sequence[str]) -> str:
        """The case with the shortest median among `names`."""
        return min(names, key=lambda name: statistics.median(self.seconds[name]))


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    device: torch.device,
    rounds: int,
    calls: int,
    progress: Callable[[str], object] | None = None,
) -> Durations:
    """Time every case in turn, `rounds` times, with `calls` calls each time, after one round that is not counted.

    Every second round has the reverse order. `progress(text)` is called after each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name in list(cases) if number % 2 else reversed(list(cases)):
            taken = duration(cases[name], device, calls)
            if number:
                seconds[name].append(taken)
        if progress is not None:
            progress(f"round {number} of {rounds}")
    return Durations(seconds)


def duration(case: Callable[[], object], device: torch.device, calls: int) -> float:
    """The seconds of one call, as the mean of `calls` calls, including all work that they leave on the device."""
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(calls):
        case()
    synchronise(device)
    return (time.perf_counter() - begin) / calls


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
