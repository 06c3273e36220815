"""The whole pipeline, killed at random moments: `python -m tests.torture` with fewer kills."""

from pathlib import Path

import pytest

from tests.torture.rounds import torture


@pytest.mark.slow
def test_kills_at_random_moments_of_every_stage_change_no_byte(tmp_path: Path) -> None:
    outcome = torture(tmp_path, kills=12, seed=0)
    assert len(outcome.kills) == 12
    assert outcome.differences == [], outcome.text()
