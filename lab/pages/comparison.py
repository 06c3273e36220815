"""Comparison of experiments: the parameters that differ, and the best value of each metric."""

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
_USUAL = ("fid", "is", "bits_per_dim")  # the metrics of a table by default
# Metrics by the last part of their name; the others have no better direction, or are those of real images.
_LOWER_IS_BETTER = {"fid", "fid_matched", "best_fid", "kid", "class_distance", "bits_per_dim"}
_HIGHER_IS_BETTER = {"is", "precision", "recall", "label_agreement"}
_WITHOUT_EXTRACTOR = {"bits_per_dim"}
_MISSING = object()  # the value of a parameter that an experiment, perhaps of another version, does not have
_SHORT = 8  # characters of a fingerprint or an id


@dataclass(frozen=True)
class Experiment:
    """A tracked experiment. Fields without a value are empty."""

    name: str
    fingerprint: str
    status: str  # "finished", "running", "failed"
    started: float  # seconds since 1970
    params: Mapping[str, Any]  # by dotted keys
    metrics: Mapping[str, float]
    extractor: str  # its digest
    id: str  # of the MLflow run


@dataclass(frozen=True)
class Cell:
    """A formatted metric of an experiment."""

    text: str
    best: bool


@dataclass(frozen=True)
class Table:
    """Experiments in their order, and the columns of the table."""

    experiments: Sequence[Experiment]
    names: Sequence[str]  # unique
    params: Mapping[str, Sequence[str]]  # those that differ, as YAML
    metrics: Mapping[str, Sequence[Cell]]
    notes: Sequence[str]


def compare(experiments: Sequence[Experiment], metrics: Sequence[str] = ()) -> Table:
    """Compare experiments, sorted by the first of `metrics`, best first. Without `metrics` their order stays."""
    ordered = by_metric(experiments, metrics[0]) if metrics else list(experiments)
    chosen = metrics or usual_metrics(ordered)
    return Table(
        ordered,
        names(ordered),
        {key: [formatted(one.params.get(key, _MISSING)) for one in ordered] for key in differing(ordered)},
        {key: cells(ordered, key) for key in chosen},
        list(notes(ordered, chosen)),
    )


def select(experiments: Sequence[Experiment], wanted: Sequence[str]) -> list[Experiment]:
    """Select experiments by name, by a pattern such as `eta-*`, or by at least four characters of a fingerprint.

    A name is that of the experiment or the unique name in the table. Raises `UsageError` if one of `wanted` selects
    nothing.
    """
    if not wanted:
        return list(experiments)
    named = list(zip(experiments, names(experiments), strict=True))

    def matches(one: Experiment, name: str, by: str) -> bool:
        return by in (one.name, name) or fnmatchcase(one.name, by) or (len(by) >= 4 and one.fingerprint.startswith(by))

    unknown = [by for by in wanted if not any(matches(*one, by) for one in named)]
    if unknown:
        known = _listed(dict.fromkeys(_printable(one.name) for one in experiments))
        raise UsageError(f"no tracked experiment is called {', '.join(unknown)}; there are {known}")
    return [one for one, name in named if any(matches(one, name, by) for by in wanted)]


def check_metrics(experiments: Sequence[Experiment], wanted: Sequence[str]) -> None:
    """Raise `UsageError` for a metric that no experiment has."""
    known = {key: None for one in experiments for key in sorted(one.metrics)}
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise UsageError(f"--metric {unknown[0]}: no experiment has it; there are {_listed(known, 40)}")


def names(experiments: Sequence[Experiment]) -> list[str]:
    """Unique printable names: equal names get a part of the fingerprint, or of the id if that is equal too."""
    plain = [_printable(one.name) for one in experiments]
    short = [f"{name} {one.fingerprint[:_SHORT]}".strip() for name, one in zip(plain, experiments, strict=True)]
    long = [f"{name} {one.id[:_SHORT]}" for name, one in zip(plain, experiments, strict=True)]
    plain_counts, short_counts = Counter(plain), Counter(short)
    return [
        name if plain_counts[name] == 1 else shorter if short_counts[shorter] == 1 else longer
        for name, shorter, longer in zip(plain, short, long, strict=True)
    ]


def differing(experiments: Sequence[Experiment]) -> list[str]:
    """The parameters that differ, in the order of the sections of params.yaml.

    An experiment that failed before it logged its parameters is not compared.
    """
    first, *others = [one.params for one in experiments if one.params] or [{}]
    keys = {key for params in (first, *others) for key in params}
    sections = list(Params.model_fields)

    def order(key: str) -> tuple[int, str]:
        section = key.split(".")[0]
        return (sections.index(section) if section in sections else len(sections), key)

    def differs(key: str) -> bool:
        return any(params.get(key, _MISSING) != first.get(key, _MISSING) for params in others)

    return sorted(filter(differs, keys), key=order)


def usual_metrics(experiments: Sequence[Experiment]) -> list[str]:
    """The default metrics of a table: FID, Inception Score and bits per dimension, as far as they are known."""
    known = sorted({key for one in experiments for key in one.metrics if key.count(".") == 1})
    return [key for last in _USUAL for key in known if _last(key) == last and not key.startswith("snapshot")]


def by_metric(experiments: Sequence[Experiment], key: str) -> list[Experiment]:
    """Sort by a metric, best first, or smallest first if it has no better direction. Missing values come last."""
    sign = -1 if _last(key) in _HIGHER_IS_BETTER else 1

    def order(one: Experiment) -> tuple[bool, float]:
        value = one.metrics.get(key, math.nan)
        return (math.isnan(value), 0.0 if math.isnan(value) else sign * value)

    return sorted(experiments, key=order)


def cells(experiments: Sequence[Experiment], key: str) -> list[Cell]:
    """A metric of each experiment. The best is marked if there are several values, all of the same extractor."""
    values = [one.metrics.get(key, math.nan) for one in experiments]
    known = [value for value in values if math.isfinite(value)]
    choose = _better(key)
    best = choose(known) if choose and len(known) > 1 and not mixed(experiments, key) else None
    return [
        Cell(number(value) if key in one.metrics else ABSENT, value == best)
        for one, value in zip(experiments, values, strict=True)
    ]


def mixed(experiments: Sequence[Experiment], key: str) -> bool:
    """Whether a metric was measured with more than one extractor."""
    if _last(key) in _WITHOUT_EXTRACTOR or _better(key) is None:
        return False
    return len({one.extractor for one in experiments if key in one.metrics and one.extractor}) > 1


def notes(experiments: Sequence[Experiment], metrics: Sequence[str]) -> Iterator[str]:
    """The remarks that belong to the table."""
    across = [key for key in metrics if mixed(experiments, key)]
    if across:
        yield (
            f"{', '.join(across)}: measured with different extractors, so the values are not comparable between all "
            f"experiments and the best is not marked"
        )


def formatted(value: Any) -> str:
    """Format the value of a parameter as in params.yaml."""
    return ABSENT if value is _MISSING else _yaml(json.dumps(value))


@cache
def _yaml(encoded: str) -> str:
    text = yaml.safe_dump(json.loads(encoded), default_flow_style=True, width=math.inf)
    return _printable(text.removesuffix("\n").removesuffix("\n..."))


def _better(key: str) -> Callable[[list[float]], float] | None:
    last = _last(key)
    return min if last in _LOWER_IS_BETTER else max if last in _HIGHER_IS_BETTER else None


def _last(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def _listed(known: Mapping[str, None], most: int = 10) -> str:
    keys = list(known)
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
