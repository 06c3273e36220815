"""The commands that reproduce an experiment's settings."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from ddpm import params
from ddpm.alternatives import in_use
from ddpm.params import ParamsError
from lab.commands import recipe
from lab.pages.reproduce import reproduce
from tests.imports import ROOT
from tests.lab.pages.reports import DEFAULTS, REPORTED

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def with_value(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.partition(".")
    return {**DEFAULTS, section: {**DEFAULTS[section], name: value} if name else value}


def obeyed(commands: list[str], folder: Path) -> dict[str, Any]:
    """The parameters after the commands, as DVC and then the stages read them."""
    first, second = (shlex.split(command.replace("\\\n", "")) for command in commands)
    assert (first, second[:3]) == (["ddpm", "recipe", "default"], ["dvc", "exp", "run"])
    assert set(second[3::2]) == {"-S"}
    (folder / "params.yaml").write_text(recipe.compose("default", ROOT / "recipes"))
    apply_overrides(folder / "params.yaml", second[4::2])
    return dict(yaml.safe_load((folder / "params.yaml").read_text()))


NASTY = 'it\'s a "model", (x)=[1] {a: b}, <script>alert(1)</script>; `rm` * # % ~'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 3),
        ("train.horizontal_flip", True),
        ("train.betas", [0.5, 0.25]),
        ("train.snapshots", [1, 2]),
        ("train.grad_clip", None),
        ("evaluate.classifier", {"channels": 1, "steps": 2, "batch_size": 3, "learning_rate": 0.5}),
        ("reported", REPORTED),
        ("reported", REPORTED | {"source": NASTY}),
        *[
            ("train.init", text)
            for text in (NASTY, "a/b c.safetensors", "1e5", "null", "True", "", " x ", "漢", "a.b-c")
        ],
    ],
)
def test_commands_reproduce_the_value(key: str, value: object, tmp_path: Path) -> None:
    wanted = with_value(key, value)
    commands = reproduce(wanted, DEFAULTS)
    assert commands is not None
    assert obeyed(commands, tmp_path) == wanted


@pytest.mark.parametrize(
    ("key", "value", "others"),
    [
        ("sample.sampler", "ancestral", {}),
        ("sample.sampler", "ancestral", {"sample.sigma": "large", "sample.eta": None, "sample.guidance": None}),
        ("diffusion.schedule", "cosine", {"diffusion.beta_start": None}),
        ("evaluate.extractor", "inception", {}),
        ("train.weighting", "min_snr", {}),
        ("data.source", "mnist", {"data.seed": None, "data.image_size": 28, "data.channels": 1}),
        ("network.conditional", True, {}),
        ("network.kind", "basic", {"network.groups": 5}),
        ("diffusion.process", "interpolation", {"diffusion.variance": "fixed", "sample.eta": 0.0}),
    ],
)
def test_commands_have_only_what_is_in_use_and_differs(key: str, value: object, others: dict[str, object]) -> None:
    wanted = with_value(key, value)
    for name, other in others.items():
        section, inner = name.split(".")
        wanted = {**wanted, section: {**wanted[section], inner: other}}
    change = f"{key}={str(value).replace('True', 'true')}"
    assert reproduce(in_use(wanted), DEFAULTS) == ["ddpm recipe default", f"dvc exp run \\\n  -S {change}"]


def test_small_floats_are_those_that_the_schema_reads(tmp_path: Path) -> None:
    commands = reproduce(with_value("train.learning_rate", 1e-5), DEFAULTS)
    assert commands is not None
    assert params.check(obeyed(commands, tmp_path)).train.learning_rate == 1e-5


def test_without_a_change_the_default_is_reproduced() -> None:
    assert reproduce(DEFAULTS, DEFAULTS) == ["ddpm recipe default", "dvc repro"]
    assert reproduce(with_value("sample.sigma", "small"), DEFAULTS) == ["ddpm recipe default", "dvc repro"]


@pytest.mark.parametrize("changed", [{"train.colour": 3}, {"colour": {"red": 1}}])
def test_keys_that_the_default_does_not_have_are_not_expressible(changed: dict[str, Any]) -> None:
    ((key, value),) = changed.items()
    assert reproduce(with_value(key, value), DEFAULTS) is None


@pytest.mark.parametrize("text", ["${HOME}", "a\\b", "two\nlines"])
def test_text_that_the_command_line_would_change_is_not_expressible(text: str) -> None:
    assert reproduce(with_value("train.init", text), DEFAULTS) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_commands_reproduce_every_recipe(name: str, tmp_path: Path) -> None:
    wanted = params.check(yaml.safe_load(recipe.compose(name, ROOT / "recipes"))).model_dump()
    commands = reproduce(wanted, DEFAULTS)
    assert commands is not None
    assert params.check(obeyed(commands, tmp_path)).model_dump() == wanted


def test_reported_metrics_need_a_source_and_numbers() -> None:
    wrongs = [{"source": "", "metrics": {"a.b": 1.0}}, {"source": "x", "metrics": {}}, {"source": "x"}]
    wrongs += [{"source": "x", "metrics": {key: 1.0}} for key in ("fid", "a|b.c", "a.b:c", "a.b[0]", "", "1.2")]
    for wrong in wrongs:
        with pytest.raises(ParamsError, match=r"reported\.(source|metrics)"):
            params.check({**DEFAULTS, "reported": wrong})
