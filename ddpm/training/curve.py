"""The loss curve: means over windows of steps, accumulated on the device and part of the resumable state."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ddpm.device import for_float64
from ddpm.errors import UsageError
from ddpm.training.loop import Record

COLUMNS = ("step", "loss", "gradient_norm", "learning_rate")


class DivergedError(UsageError):
    """A loss or a gradient is not a finite number; `step` is the first such optimizer step."""

    def __init__(self, step: int, more: str = "") -> None:
        back = "" if more else "; train.on_divergence: rewind goes back and draws other batches"
        super().__init__(
            f"training diverged: the loss or its gradient is not finite at step {step}{more}. "
            f"Lower train.learning_rate, set train.grad_clip, lengthen train.warmup, or use train.precision fp32{back}"
        )
        self.step = step


class LossCurve:
    """Turns each window of `log_every` records into a point: the last step, and means over the window.

    `add` waits for the device only if the device has no float64; the other methods always do.
    """

    def __init__(self, log_every: int, device: torch.device) -> None:
        self.log_every = log_every
        self._points: list[Tensor] = []
        # Step, sum of losses, sum of gradient norms, last learning rate, steps summed, first step not finite (0: none).
        self._window = torch.zeros(6, dtype=torch.float64, device=for_float64(device))

    def add(self, record: Record) -> bool:
        """Add the record of a step; return whether it ends a window."""
        window = self._window
        bad = ~torch.isfinite(record.loss + record.gradient_norm).to(window.device)
        window[5] += record.step * ((window[5] == 0) & bad)  # torch.where would copy the step and wait
        window[1] += record.loss.to(window)
        window[2] += record.gradient_norm.to(window)
        window[0].fill_(record.step)
        window[3].fill_(record.learning_rate)
        window[4] += 1
        if record.step % self.log_every:
            return False
        self._points.append(self._point())
        window[:5] = 0
        return True

    def check(self) -> None:
        """Raise `DivergedError` if any step so far was not finite."""
        if step := self.first_bad():
            raise DivergedError(step)

    def first_bad(self) -> int:
        """The first step so far that was not finite, or 0."""
        return int(self._window[5])

    def points(self) -> list[dict[str, float]]:
        """All points in order, with the columns COLUMNS; the last may be of an incomplete window."""
        return [_named(row) for row in self._points + ([self._point()] if self._window[4] else [])]

    def last(self) -> dict[str, float]:
        """The point of the last complete window."""
        return _named(self._points[-1])

    def state(self) -> dict[str, Tensor]:
        """The state to resume from: the points of complete windows (P, 4) and the open window (6,), float64."""
        points = (
            torch.stack([p.cpu() for p in self._points]) if self._points else torch.zeros(0, 4, dtype=torch.float64)
        )
        return {"points": points, "window": self._window.cpu().clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a result of `state`."""
        self._points = list(state["points"])
        self._window.copy_(state["window"])

    def _point(self) -> Tensor:
        step, loss, norm, rate, count, _ = self._window
        return torch.stack([step, loss / count, norm / count, rate])


def with_rewinds(points: Sequence[Mapping[str, float]], rewinds: Sequence[tuple[int, int]]) -> list[dict[str, float]]:
    """The points with the number of rewinds before the step of each, if there are any; see `Learner.rewinds`."""
    if not rewinds:
        return [dict(point) for point in points]
    backs = [back for _, back in rewinds]
    counts = (max((n for n, back in enumerate(backs, 1) if back < point["step"]), default=0) for point in points)
    return [{**point, "rewinds": count} for point, count in zip(points, counts, strict=True)]


def _named(point: Tensor) -> dict[str, float]:
    return dict(zip(COLUMNS, point.tolist(), strict=True))
