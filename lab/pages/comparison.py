"""Experiments side by side: in which parameters they differ, and which has the best metrics."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import yaml

from ddpm.errors import UsageError
from ddpm.params import Params
from lab.pages.contents import number

ABSENT = "-"
_USUAL = ("fid", "is", "bits_per_dim")  # the metrics of a table, where nothing else is asked for
# Which way a metric is better, by the end of its name; the others have no better way, or are of the real images.
_SMALL = {"fid", "fid_matched", "best_fid", "kid", "class_distance", "bits_per_dim"}
_LARGE = {"is", "precision", "recall", "label_agreement"}
_WITHOUT_EXTRACTOR = {"bits_per_dim"}
_NOTHING = object()  # instead of a parameter that an experiment, of another version perhaps, does not have
_SHORT = 8  # letters of a fingerprint


@dataclass(frozen=True)
class Experiment:
    """A tracked experiment; what it does not have yet is empty."""

    name: str
    fingerprint: str
    status: str  # "finished", "running", "failed"
    started: float  # seconds since 1970
    params: Mapping[str, Any]  # by dotted keys
    metrics: Mapping[str, float]
    extractor: str  # the digest of the feature network behind the metrics
    id: str  # of its records


@dataclass(frozen=True)
class Cell:
    """A metric of an experiment, as text."""

    text: str
    best: bool


@dataclass(frozen=True)
class Table:
    """Experiments in the order in which they are shown, and the columns that say something."""

    experiments: Sequence[Experiment]
    names: Sequence[str]  # no two alike
    params: Mapping[str, Sequence[str]]  # those in which the experiments differ, as YAML
    metrics: Mapping[str, Sequence[Cell]]
    notes: Sequence[str]


def compare(experiments: Sequence[Experiment], metrics: Sequence[str] = ()) -> Table:
    """The table of some experiments. Sorted by the first of `metrics`, best first; without any in the given order."""
    ordered = by_metric(experiments, metrics[0]) if metrics else list(experiments)
    chosen = metrics or usual_metrics(ordered)
    return Table(
        ordered,
        names(ordered),
        {key: [shown(one.params.get(key, _NOTHING)) for one in ordered] for key in differing(ordered)},
        {key: cells(ordered, key) for key in chosen},
        list(notes(ordered, chosen)),
    )


def select(experiments: Sequence[Experiment], wanted: Sequence[str]) -> list[Experiment]:
    """Those that any of `wanted` means: a name, a pattern such as `eta-*`, or how a fingerprint begins.

    A name is what the experiment has, or what the table calls it to tell it from others.
    """
    if not wanted:
        return list(experiments)
    called = list(zip(experiments, names(experiments), strict=True))

    def meant(one: Experiment, name: str, by: str) -> bool:
        return by in (one.name, name) or fnmatchcase(one.name, by) or (len(by) >= 4 and one.fingerprint.startswith(by))

    unknown = [by for by in wanted if not any(meant(*one, by) for one in called)]
    if unknown:
        known = _few(dict.fromkeys(_printable(one.name) for one in experiments))
        raise UsageError(f"no tracked experiment is called {', '.join(unknown)}; there are {known}")
    return [one for one, name in called if any(meant(one, name, by) for by in wanted)]


def check_metrics(experiments: Sequence[Experiment], wanted: Sequence[str]) -> None:
    """Raise `UsageError` for a metric that no experiment has."""
    known = {key: None for one in experiments for key in sorted(one.metrics)}
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise UsageError(f"--metric {unknown[0]}: no experiment has it; there are {_few(known, 40)}")


def names(experiments: Sequence[Experiment]) -> list[str]:
    """Their names, with as much behind them as tells those of the same name apart; nothing in them moves a cursor."""
    plain = [_printable(one.name) for one in experiments]
    short = [f"{name} {one.fingerprint[:_SHORT]}".strip() for name, one in zip(plain, experiments, strict=True)]
    long = [f"{name} {one.id[:_SHORT]}" for name, one in zip(plain, experiments, strict=True)]
    often, still = Counter(plain), Counter(short)
    return [
        name if often[name] == 1 else middle if still[middle] == 1 else last
        for name, middle, last in zip(plain, short, long, strict=True)
    ]


def differing(experiments: Sequence[Experiment]) -> list[str]:
    """The parameters in which the experiments differ, in the order of params.yaml's sections.

    One that failed before it had told its parameters differs from no other.
    """
    first, *others = [one.params for one in experiments if one.params] or [{}]
    keys = {key for params in (first, *others) for key in params}
    sections = list(Params.model_fields)

    def place(key: str) -> tuple[int, str]:
        section = key.split(".")[0]
        return (sections.index(section) if section in sections else len(sections), key)

    def differs(key: str) -> bool:
        return any(params.get(key, _NOTHING) != first.get(key, _NOTHING) for params in others)

    return sorted(filter(differs, keys), key=place)


def usual_metrics(experiments: Sequence[Experiment]) -> list[str]:
    """A few that any experiment has: those that people ask for first."""
    known = sorted({key for one in experiments for key in one.metrics if key.count(".") == 1})
    return [key for last in _USUAL for key in known if _last(key) == last and not key.startswith("snapshot")]


def by_metric(experiments: Sequence[Experiment], key: str) -> list[Experiment]:
    """Best first, or smallest first where nothing is better; at the end those that have no such number."""
    sign = -1 if _last(key) in _LARGE else 1

    def place(one: Experiment) -> tuple[bool, float]:
        value = one.metrics.get(key, math.nan)
        return (math.isnan(value), 0.0 if math.isnan(value) else sign * value)

    return sorted(experiments, key=place)


def cells(experiments: Sequence[Experiment], key: str) -> list[Cell]:
    """A metric of each, the best marked where it can be told: not across extractors, nor where there is one alone."""
    values = [one.metrics.get(key, math.nan) for one in experiments]
    known = [value for value in values if math.isfinite(value)]
    choose = _better(key)
    best = choose(known) if choose and len(known) > 1 and not mixed(experiments, key) else None
    return [
        Cell(number(value) if key in one.metrics else ABSENT, value == best)
        for one, value in zip(experiments, values, strict=True)
    ]


def mixed(experiments: Sequence[Experiment], key: str) -> bool:
    """Whether a metric was measured under more than one feature network."""
    if _last(key) in _WITHOUT_EXTRACTOR or _better(key) is None:
        return False
    return len({one.extractor for one in experiments if key in one.metrics and one.extractor}) > 1


def notes(experiments: Sequence[Experiment], metrics: Sequence[str]) -> Iterator[str]:
    """What a reader of the table must know."""
    across = [key for key in metrics if mixed(experiments, key)]
    if across:
        yield (
            f"{', '.join(across)}: measured under different feature networks, so these numbers cannot be compared "
            f"between all of the experiments, and no best is marked"
        )


def shown(value: Any) -> str:
    """A parameter as params.yaml has it."""
    return ABSENT if value is _NOTHING else _yaml(json.dumps(value))


@cache
def _yaml(encoded: str) -> str:
    text = yaml.safe_dump(json.loads(encoded), default_flow_style=True, width=math.inf)
    return _printable(text.removesuffix("\n").removesuffix("\n..."))


def _better(key: str) -> Callable[[list[float]], float] | None:
    last = _last(key)
    return min if last in _SMALL else max if last in _LARGE else None


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _few(known: Mapping[str, None], most: int = 10) -> str:
    listed = list(known)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
