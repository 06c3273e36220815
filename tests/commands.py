"""The `ddpm` command, run in this process."""

from typer.testing import CliRunner, Result

from lab.commands.app import app


def run(*arguments: object) -> Result:
    """What the command with these arguments prints, and its exit code."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(*arguments: object) -> str:
    """The message of a command that fails as it should: no traceback, exit code 1, nothing on stdout."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr.removesuffix("\n")
