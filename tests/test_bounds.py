"""Every number, list and text of params.yaml has a bound, which its message names in plain English."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddpm import params
from lab.commands import recipe
from tests.imports import ROOT
from tests.test_params import changed, complaints


@pytest.mark.parametrize(
    ("key", "largest", "beyond", "rule"),
    [
        ("data.image_size", 4096, 4098, "must be at most 4,096"),
        ("diffusion.timesteps", 100_000, 100_001, "must be at most 100,000"),
        ("network.channels", 16_384, 16_386, "must be at most 16,384"),
        ("network.blocks", 100, 101, "must be at most 100"),
        ("network.norm_eps", 1.0, 1.5, "must be at most 1"),
        ("network.norm_eps", 1e-12, 1e-13, "must be at least 1e-12"),
        ("train.steps", 1_000_000_000, 10**40, "must be at most 1,000,000,000"),
        ("train.batch_size", 1_000_000, 1_000_001, "must be at most 1,000,000"),
        ("train.learning_rate", 1000.0, 1001.0, "must be at most 1,000"),
        ("train.warmup", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("train.grad_clip", 1e9, 1e10, "must be at most 1,000,000,000"),
        ("train.grad_clip", 1e-9, 1e-10, "must be at least 1e-09"),
        ("train.ema_every", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("sample.count", 100_000_000, 100_000_001, "must be at most 100,000,000"),
        ("sample.batch_size", 1_000_000, 1_000_001, "must be at most 1,000,000"),
        ("sample.steps", 1000, 100_001, "must be at most 100,000"),
        ("evaluate.likelihood_images", 100_000_000, 100_000_001, "must be at most 100,000,000"),
        ("evaluate.classifier.channels", 1024, 1025, "must be at most 1,024"),
        ("evaluate.classifier.steps", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("evaluate.classifier.batch_size", 1_000_000, 1_000_001, "must be at most 1,000,000"),
        ("evaluate.classifier.learning_rate", 1000.0, 1001.0, "must be at most 1,000"),
        ("runtime.threads", 1024, 1025, "must be at most 1,024"),
        ("runtime.checkpoint_every", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("runtime.preview_every", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("runtime.log_every", 1_000_000_000, 1_000_000_001, "must be at most 1,000,000,000"),
        ("runtime.keep_states", 1000, 1001, "must be at most 1,000"),
        ("runtime.device", "cuda:99", "cuda:100", "must be auto, cpu, cuda, cuda:N with N at most 99, or mps"),
    ],
)
def test_the_largest_value_is_accepted_and_the_next_is_refused_by_name(
    key: str, largest: object, beyond: object, rule: str
) -> None:
    params.check(nested(key, largest))
    assert refused(nested(key, beyond)) == [f"{key} = {beyond!r}: {rule}"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"network.multipliers": [1, 4097]}, "network.multipliers.1 = 4097: must be at most 4,096"),
        ({"network.attention": [5000]}, "network.attention.0 = 5000: must be at most 4,096"),
        ({"network.heads": 20_000}, "network.heads = 20000: must be at most 16,384"),
        ({"network.groups": 20_000}, "network.groups = 20000: must be at most 16,384"),
        ({"train.accumulate": 10**7}, "train.accumulate = 10000000: must be at most 1,000,000"),
        ({"train.min_snr_gamma": 1e12}, "train.min_snr_gamma = 1000000000000.0: must be at most 1,000,000,000"),
        ({"train.snapshots": [10**10]}, "train.snapshots.0 = 10000000000: must be at most 1,000,000,000"),
        ({"sample.guidance": 1001.0}, "sample.guidance = 1001.0: must be at most 1,000"),
        ({"diffusion.value_range": [-1.0, 1e5]}, "diffusion.value_range.1 = 100000.0: must be at most 10,000"),
        ({"diffusion.value_range": [-1e5, 1.0]}, "diffusion.value_range.0 = -100000.0: must be at least -10,000"),
        ({"train.init": "a\0b"}, r"train.init = 'a\x00b': must not contain a null character"),
        (
            {"network.multipliers": [1] * 14},
            f"network.multipliers = {[1] * 14}: list must have at most 13 items after validation, not 14",
        ),
        (
            {"diffusion.value_range": [0.0, 1e-5]},
            "diffusion.value_range = [0.0, 1e-05]: must be [low, high] with low < high, and these at least 0.001 apart",
        ),
    ],
)
def test_a_value_beyond_its_bound_is_refused_by_name(changes: dict[str, Any], line: str) -> None:
    assert complaints(changes) == [line]


def test_every_number_list_and_text_of_the_schema_has_a_bound() -> None:
    schema = params.Params.model_json_schema()
    found = dict(unbounded(schema))
    assert found == {}
    assert len(list(leaves(schema))) > 80


def unbounded(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a JSON schema that allow values of any size."""
    bounds = {
        "integer": ("maximum", "exclusiveMaximum", "le", "lt"),
        "number": ("maximum", "exclusiveMaximum", "le", "lt"),
        "array": ("maxItems",),
        "string": ("maxLength", "enum", "const", "pattern"),
    }
    for where, part in leaves(schema):
        kind = part.get("type")
        if kind in bounds and not {*bounds[kind], "enum", "const"} & part.keys():
            yield where, part
        if "additionalProperties" in part and part["additionalProperties"] and "maxProperties" not in part:
            yield where, part


def leaves(part: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        if isinstance(part.get("type"), str):
            yield where, part
        for key, inner in part.items():
            yield from leaves(inner, f"{where}.{key}")
    elif isinstance(part, list):
        for index, inner in enumerate(part):
            yield from leaves(inner, f"{where}.{index}")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_no_recipe_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(recipe.compose(name, ROOT / "recipes"))
    params.load(path)


def test_a_long_value_and_many_errors_are_cut() -> None:
    (line,) = complaints({"data.fit": "x" * 10**6})
    assert len(line) < 500
    lines = complaints({"train.snapshots": ["x"] * 900})
    assert lines[-1] == "and 800 more"
    assert len(lines) == 101


def test_a_text_is_at_most_as_long_as_a_path() -> None:
    (line,) = complaints({"tracking.uri": "x" * 5000})
    assert line.endswith("string must have at most 4096 characters")


def test_long_lists_are_refused_at_once() -> None:
    begun = time.process_time()
    lines = complaints({"network.multipliers": [1] * 20_000, "network.attention": [5] * 20_000})
    assert [line.partition(" = ")[0] for line in lines] == ["network.multipliers", "network.attention"]
    assert time.process_time() - begun < 2


def test_an_integer_with_more_digits_than_python_prints_is_refused() -> None:
    assert complaints({"train.steps": 16**5000}) == [
        "train.steps = an integer of 20,001 bits: must be at most 1,000,000,000"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: 0x_", "invalid literal"),
        ("a: !!timestamp x", "is not valid YAML"),
        ("a: !!bool maybe", "is not valid YAML"),
        (f"a: {'1' * 5000}", "Exceeds the limit"),
        (f"a: {'[' * 50_000}", "it is nested too deeply"),
        ("a: " + "- " * 40_000, "is not valid YAML"),
        (f"a: {'x' * 200_000}", "is larger than 100,000 bytes: it holds settings, not data"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_contents_that_the_parser_of_yaml_refuses_are_one_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    begun = time.process_time()
    with pytest.raises(params.ParamsError, match=re.escape(message)):
        params.load(path)
    assert time.process_time() - begun < 5


def nested(key: str, value: object) -> dict[str, Any]:
    """The committed values with one changed, at any depth, and what it needs beside it."""
    needs = {"train.steps": {"train.snapshots": []}, "sample.steps": {"diffusion.timesteps": 1000}}
    section, *inner, last = key.split(".")
    values = changed(needs.get(key, {}) | ({} if key != "diffusion.timesteps" else {"diffusion.schedule": "cosine"}))
    target = values[section]
    for name in inner:
        target = target[name]
    target[last] = value
    return values


def refused(values: dict[str, Any]) -> list[str]:
    with pytest.raises(params.ParamsError) as caught:
        params.check(values)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]
