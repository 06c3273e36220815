"""The `ddpm` command, run in this process."""

from typer.testing import CliRunner, Result

from lab.commands.app import app


def run(*arguments: object) -> Result:
    """The output and the exit code of the command with these arguments."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(*arguments: object) -> str:
    """The message of a command that is expected to fail with exit code 1, without a traceback or other output."""
    result = run(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr.removesuffix("\n")
