"""Generated bad params.yaml: each is refused with one `ParamsError` or accepted, quickly, and never anything else."""

import copy
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm import estimate, params
from lab import capacity
from lab.commands import check
from tests.imports import ROOT

DEFAULT = ROOT / "recipes/default.yaml"
SECONDS = 2  # for one file, on a busy machine
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 64, 1000, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**40, -(10**40), 10**400, 16**5000),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 1e-300, 5e-324, 1e-12, 1e12, 1e40, 1.7e308, -1e308, 0.1 + 0.2),
    *(float("inf"), float("-inf"), float("nan")),
]
TEXTS: list[Any] = [
    *(
        "",
        " ",
        "a",
        "1",
        "1e40",
        "1e-400",
        "-1e999",
        "null",
        "true",
        "nan",
        "inf",
        "cuda",
        "cuda:0",
        "cuda:" + "9" * 30,
    ),
    *(
        "x" * 10_000,
        "é" * 5000,
        "a\0b",
        "\n\n",
        "${train.seed}",
        "../" * 2000,
        "0" * 64,
        "{}",
        "[1, 2",
        "\ud800",
        "1_0",
    ),
]
RUBBISH: list[Any] = [
    *(None, True, False, [], {}, [[]], [{}], {"a": {"b": {"c": [1, [2, [3]]]}}}, {1: 2}, {None: None}, {True: [None]}),
    *([0] * 5000, list(range(1, 2000)), ["x"] * 3000, {f"key{i}": i for i in range(500)}, [1, "a", None, [], {}]),
    *([-1.0, 1.0], [1.0, -1.0], [0, 1], [1] * 13, [4096] * 13, [16_384], [0.9, 0.999], [1, 2, 2, 2], [1, 2, 4, 8, 16]),
]
CONTENTS = [
    *(
        "",
        "\n",
        "a",
        "- 1",
        "{}",
        "[]",
        "null",
        "42",
        "--- 1\n--- 2\n",
        "%YAML 9.9\n---\n{}",
        "a: b: c",
        "\t- x",
        "a: [",
        "{a",
    ),
    *("a: *b", "a: &a [*a]", "? [1]\n: 2", "a: 2026-13-45", "a: 0x_", "a: 0b_", "a: !!timestamp x", "a: !!bool maybe"),
    *(
        "a: !!float x",
        "a: !!python/object:os.system x",
        "<<: 3",
        "a: =",
        "a: " + "[" * 40_000,
        "- " * 30_000,
        "a: " * 1000,
    ),
    *(
        "a: 0x" + "f" * 5000,
        "a: " + "1" * 5000,
        "\x07",
        "\ufeffdata: 1",
        "data: {source: digits}",
        "x" * 200_000,
        "🦆: 🦆",
    ),
]


def places(values: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all keys of nested mappings and to all items of their lists."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def mutated(defaults: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The defaults after one to five random changes."""
    values = copy.deepcopy(defaults)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 5])):
        *above, key = draw.choice(list(places(values)))
        inside = values
        for step in above:
            inside = inside[step]
        match draw.choice(["set", "set", "set", "set", "remove", "add", "swap", "scale"]):
            case "set":
                inside[key] = copy.deepcopy(draw.choice(draw.choice([NUMBERS, NUMBERS, TEXTS, RUBBISH])))
            case "remove":
                del inside[key]
            case "add" if isinstance(inside, dict):
                inside[draw.choice([*TEXTS[:4], "stepz", 3, None, True, "x" * 3000])] = draw.choice(NUMBERS)
            case "swap":
                *other_above, other = draw.choice(list(places(defaults)))
                taken: Any = defaults
                for step in (*other_above, other):
                    taken = taken[step]
                inside[key] = copy.deepcopy(taken)
            case "scale" if isinstance(inside[key], int | float):
                inside[key] = inside[key] * draw.choice([0, -1, 2, 3, 0.5, 16, 1000, 10**6, 10**12])
            case _:
                inside[key] = [inside[key]]
    return values


def content(number: int, defaults: dict[str, Any]) -> bytes:
    """The params.yaml with this number: a text of its own, a damaged file, or one with other values."""
    draw = random.Random(number)
    if number < len(CONTENTS):
        return CONTENTS[number].encode("utf-8", "surrogatepass")
    text = DEFAULT.read_text(encoding="utf-8")
    if number % 10 == 0:  # characters or lines changed
        lines = text.splitlines()
        for _ in range(draw.randint(1, 4)):
            line = draw.randrange(len(lines))
            at = draw.randrange(len(lines[line]) + 1)
            lines[line] = lines[line][:at] + draw.choice(":[]{}&*!|>%@`'\"\t#,-?0.e\\\0") + lines[line][at:]
        text = "\n".join(lines[draw.choice([0, 0, draw.randrange(len(lines))]) :])
        return text.encode() if draw.random() < 0.8 else text.encode("utf-16")
    return yaml.dump(mutated(defaults, draw), Dumper=Exact, allow_unicode=True).encode("utf-8", "surrogatepass")


class Exact(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes integers of any size, which Python itself prints only up to 4300 digits."""


Exact.add_representer(
    int,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:int", hex(value) if value > 10**50 else str(value)
    ),
)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt work without end."""

    def stop(*_: object) -> None:
        raise TimeoutError("endless")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path) -> str:
    """`refused` or `accepted`, for a file that is then estimated, too."""
    with limited(30):
        begun = time.process_time()
        try:
            loaded = params.load(path)
        except params.ParamsError as error:
            message = str(error)
            assert len(message) < 30_000
            assert message.splitlines()[0]
            result = "refused"
        else:
            needs = estimate.experiment(loaded)
            assert needs.parameters > 0
            assert all(need.memory >= 0 and capacity.size(need.memory) for need in needs.stages.values())
            assert list(check._needs(loaded))
            result = "accepted"
        assert time.process_time() - begun < SECONDS
    return result


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_generated_file_is_refused_with_one_error_or_accepted(count: int, tmp_path: Path) -> None:
    path, defaults = tmp_path / "params.yaml", yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    outcomes = []
    for number in range(count):
        path.write_bytes(content(number, defaults))
        try:
            outcomes.append(outcome(path))
        except Exception as error:
            raise AssertionError(f"file {number}: {type(error).__name__}") from error
    assert outcomes.count("refused") > 0.6 * count
    assert outcomes.count("accepted") > 0.03 * count
