"""Comparison of experiments: the parameters that differ, and the best value of each metric."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

import yaml

from ddpm.errors import UsageError
from ddpm.params import Params
from lab.pages.contents import number

_ABSENT = "-"
_DIGEST = re.compile("[0-9a-f]{64}")
_USUAL = ("fid", "is", "bits_per_dim")  # the metrics of a table by default
# Metrics by the last part of their name: 1 if lower is better, -1 if higher is better. The others have no
# preferred direction or describe real images.
_DIRECTIONS = {
    **dict.fromkeys(("fid", "fid_matched", "best_fid", "kid", "class_distance", "bits_per_dim"), 1),
    **dict.fromkeys(("is", "precision", "recall", "label_agreement"), -1),
}
_WITHOUT_EXTRACTOR = {"bits_per_dim"}
_MISSING = object()  # the value of a parameter that an experiment, perhaps of another version, does not have


@dataclass(frozen=True)
class Experiment:
    """A tracked experiment. Fields without a value are empty."""

    name: str
    fingerprint: str
    status: str  # "finished", "running", "failed", "interrupted"
    started: float  # seconds since 1970
    params: Mapping[str, Any]  # by dotted keys
    metrics: Mapping[str, float]
    extractor: str  # its digest
    id: str  # of the MLflow run


class Cell(NamedTuple):
    """A formatted metric of an experiment."""

    text: str
    best: bool


@dataclass(frozen=True)
class Table:
    """Experiments in their order, and the columns of the table."""

    experiments: Sequence[Experiment]
    names: Sequence[str]  # unique
    params: Mapping[str, Sequence[str]]  # those that differ, as YAML; digests are shortened
    metrics: Mapping[str, Sequence[Cell]]
    notes: Sequence[str]

    def has_best(self) -> bool:
        """Whether a cell is marked as the best of its column."""
        return any(cell.best for cells in self.metrics.values() for cell in cells)


def compare(experiments: Sequence[Experiment], metrics: Sequence[str] = ()) -> Table:
    """Compare experiments, sorted by the first of `metrics`, best first. Without `metrics` their order stays."""
    ordered = _sorted(experiments, metrics[0]) if metrics else list(experiments)
    chosen = metrics or _usual_metrics(ordered)
    names = _names(ordered)
    mixed = [key for key in chosen if _has_different_extractors(ordered, key)]
    different = "measured with different extractors, so the values are not comparable between all experiments"
    notes = [f"{', '.join(mixed)}: {different} and the best is not marked"] if mixed else []
    useless = [key for key in chosen if any(_useless(one, key) for one in ordered)]
    if useless:
        of = [name for one, name in zip(ordered, names, strict=True) if any(_useless(one, key) for key in useless)]
        notes.append(f"{', '.join(useless)}: the extractor of {_listed(of)} is useless, so the best is not marked")
    return Table(
        ordered,
        names,
        {key: [_formatted(one.params.get(key, _MISSING)) for one in ordered] for key in _differing(ordered)},
        {key: _cells(ordered, key, marked=key not in (*mixed, *useless)) for key in chosen},
        notes,
    )


def select(experiments: Sequence[Experiment], wanted: Sequence[str]) -> list[Experiment]:
    """Select experiments by name, by a pattern such as `eta-*`, or by at least four characters of a fingerprint.

    A name is that of the experiment or the unique name in the table. Raises `UsageError` if one of `wanted` selects
    nothing.
    """
    if not wanted:
        return list(experiments)
    named = list(zip(experiments, _names(experiments), strict=True))

    def matches(one: Experiment, name: str, by: str) -> bool:
        return by in (one.name, name) or fnmatchcase(one.name, by) or (len(by) >= 4 and one.fingerprint.startswith(by))

    unknown = [by for by in wanted if not any(matches(*one, by) for one in named)]
    if unknown:
        known = _listed(dict.fromkeys(_printable(one.name) for one in experiments))
        raise UsageError(f"no tracked experiment is called {', '.join(unknown)}; there are {known}")
    return [one for one, name in named if any(matches(one, name, by) for by in wanted)]


def check_metrics(experiments: Sequence[Experiment], wanted: Sequence[str]) -> None:
    """Raise `UsageError` for a metric that no experiment has, with the nearest and a list without system metrics."""
    known = dict.fromkeys(key for one in experiments for key in sorted(one.metrics))
    for key in wanted:
        if key not in known:
            listed = [one for one in known if not one.startswith("system/")]
            same_end = [one for one in listed if _last(one) == _last(key)]
            nearest = (same_end or get_close_matches(key, listed))[:1]
            hint = "".join(f"the nearest is {one}; " for one in nearest)
            raise UsageError(f"--metric {key}: no experiment has it; {hint}there are {_listed(listed, 40)}")


def _names(experiments: Sequence[Experiment]) -> list[str]:
    """Unique printable names: equal names get a part of the fingerprint, or of the id if that is equal too."""
    plain = [_printable(one.name) for one in experiments]
    spellings = [
        (name, f"{name} {one.fingerprint[:8]}".strip(), f"{name} {one.id[:8]}")
        for name, one in zip(plain, experiments, strict=True)
    ]
    counts = Counter(spelling for own in spellings for spelling in set(own))
    return [next((spelling for spelling in own if counts[spelling] == 1), own[-1]) for own in spellings]


def _differing(experiments: Sequence[Experiment]) -> list[str]:
    """The parameters that differ, in the order of the sections of params.yaml.

    An experiment that failed before it logged its parameters is not compared.
    """
    first, *others = [one.params for one in experiments if one.params] or [{}]
    keys = sorted({key for params in (first, *others) for key in params})
    order = {section: index for index, section in enumerate(Params.model_fields)}
    return [
        key
        for key in sorted(keys, key=lambda key: order.get(key.split(".")[0], len(order)))
        if any(params.get(key, _MISSING) != first.get(key, _MISSING) for params in others)
    ]


def _usual_metrics(experiments: Sequence[Experiment]) -> list[str]:
    """The default metrics of a table: FID, Inception Score and bits per dimension, as far as they are known."""
    known = sorted({key for one in experiments for key in one.metrics if key.count(".") == 1})
    return [key for last in _USUAL for key in known if _last(key) == last and not key.startswith("snapshot")]


def _sorted(experiments: Sequence[Experiment], key: str) -> list[Experiment]:
    """Sort by a metric, best first, or smallest first if it has no better direction. Missing values come last."""
    sign = _DIRECTIONS.get(_last(key), 1)

    def order(one: Experiment) -> tuple[bool, float]:
        value = sign * one.metrics.get(key, math.nan)
        return (math.isnan(value), value)

    return sorted(experiments, key=order)


def _cells(experiments: Sequence[Experiment], key: str, marked: bool) -> list[Cell]:
    """A metric of each experiment. The best of several values is marked if `marked` and if there is a best."""
    values = [one.metrics.get(key) for one in experiments]
    known = [value for value in values if value is not None and math.isfinite(value)]
    sign = _DIRECTIONS.get(_last(key))
    best = sign * min(sign * value for value in known) if sign and marked and len(known) > 1 else None
    return [Cell(_ABSENT, False) if value is None else Cell(number(value), value == best) for value in values]


def _has_different_extractors(experiments: Sequence[Experiment], key: str) -> bool:
    """Whether the values of a metric with a best value depend on different extractors."""
    known = {one.extractor for one in experiments if key in one.metrics and one.extractor}
    return _depends_on_extractor(key) and len(known) > 1


def _depends_on_extractor(key: str) -> bool:
    """Whether a metric has a best value and depends on the extractor."""
    return _last(key) in _DIRECTIONS and _last(key) not in _WITHOUT_EXTRACTOR


def _useless(one: Experiment, key: str) -> bool:
    """Whether an experiment has measured a metric that has a best value with an extractor that is useless."""
    return _depends_on_extractor(key) and key in one.metrics and any(_last(name) == "useless" for name in one.metrics)


def _formatted(value: Any) -> str:
    """Format the value of a parameter as in params.yaml; of a digest, its first 8 characters."""
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:8]
    return _ABSENT if value is _MISSING else _yaml(json.dumps(value))


@cache
def _yaml(encoded: str) -> str:
    text = yaml.safe_dump(json.loads(encoded), default_flow_style=True, width=math.inf)
    return _printable(text.removesuffix("\n").removesuffix("\n..."))


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _listed(known: Iterable[str], most: int = 10) -> str:
    keys = list(known)
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
