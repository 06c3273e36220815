"""`ddpm check` of generated bad params.yaml ends with a message."""

from pathlib import Path

import pytest
import yaml

from tests.commands import run
from tests.test_generated_params import DEFAULT, content, limited


@pytest.mark.parametrize("count", [45, pytest.param(300, marks=pytest.mark.slow)])
def test_ddpm_check_ends_with_a_message_for_a_generated_file(count: int, repository: Path) -> None:
    defaults = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    for number in range(count):
        (repository / "params.yaml").write_bytes(content(number, defaults))
        with limited(30):
            result = run("check")
        assert isinstance(result.exception, SystemExit | None), (number, result.exception)
        assert result.exit_code in (0, 1)
        assert "Traceback" not in result.output
