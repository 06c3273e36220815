"""Sampling options on the command line."""

from dataclasses import fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ddpm.errors import UsageError
from ddpm.params import Conflict, ConflictError
from ddpm.sampling.options import Options
from lab.commands.sampling import NAMES, sampling_options
from tests.commands import run

GIVEN = [
    "--sampler", "ancestral", "--count", "3", "--seed", "5", "--steps", "4", "--eta", "0.5", "--sigma", "small",
    "--spacing", "quad", "--no-clip", "--label", "dog", "--label", "7", "--guidance", "1",
    "--precision", "bf16",
]  # fmt: skip


def given(arguments: list[str], defaults: Options, names: tuple[str, ...] = NAMES) -> Options:
    """The options that a command receives."""
    seen: list[Options] = []
    app = typer.Typer()

    @app.command()
    @sampling_options(defaults, names)
    def command(
        name: Annotated[str, typer.Option()], options: Options, times: Annotated[int, typer.Option()] = 1
    ) -> None:
        assert (name, times) == ("x", 2)
        seen.append(options)

    result = CliRunner().invoke(app, ["--name", "x", "--times", "2", *arguments])
    assert result.exit_code == 0, result.output
    return seen[0]


def test_every_option_reaches_the_command() -> None:
    expected = Options("ancestral", 3, 5, 4, 0.5, "small", "quad", False, ["dog", "7"], 1.0, "bf16")
    assert given(GIVEN, Options()) == expected
    assert all(getattr(expected, field.name) != field.default for field in fields(Options))


@pytest.mark.parametrize("defaults", [Options(), Options(sampler=None, count=4, clip=False)])
def test_options_that_are_not_given_have_the_defaults(defaults: Options) -> None:
    assert given([], defaults) == defaults
    assert given(["--seed", "3"], defaults, ("seed",)) == Options(**vars(defaults) | {"seed": 3})


def test_a_command_has_only_the_options_it_names() -> None:
    with pytest.raises(AssertionError, match="No such option: --count"):
        given(["--count", "3"], Options(), ("seed",))


def test_a_conflict_names_the_option_of_the_command_line() -> None:
    @sampling_options(Options())
    def command(options: Options) -> None:
        assert options == Options()
        raise ConflictError([Conflict("sample.steps", 2000, "too many"), Conflict("sample.eta", 0.5, "not used")])

    with pytest.raises(UsageError) as caught:
        command(**vars(Options()))
    assert type(caught.value) is UsageError
    assert str(caught.value) == "--steps 2000: too many\n  --eta 0.5: not used"


@pytest.mark.parametrize("command", ["generate", "interpolate", "export"])
def test_help_shows_options_with_their_choices_and_defaults(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.replace("│", " ").split())
    assert "large|small" in text
    assert "[default: clip]" in text
    assert ("[default: ddim]" in text) == (command == "generate")
    for name in NAMES:
        kept = {"generate": NAMES, "export": ("sigma", "clip")}.get(
            command, set(NAMES) - {"count", "label", "guidance"}
        )
        assert (f"--{name} " in text) == (name in kept), name
