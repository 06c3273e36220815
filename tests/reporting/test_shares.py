"""The file of class shares."""

from pathlib import Path

import pytest

from ddpm.reporting import shares
from ddpm.reporting.shares import Share


@pytest.mark.parametrize(
    "names", [[], ["0", "1"], ["NA", "null", "", "a,b", '"', "<script>", "1e5", "漢", "two\nlines"]]
)
def test_what_is_read_is_what_was_written(names: list[str], tmp_path: Path) -> None:
    written = [Share(name, 0.1 * place, 1 / (place + 3)) for place, name in enumerate(names)]
    shares.write(tmp_path / "classes.csv", written)
    assert shares.read(tmp_path / "classes.csv") == written


def test_without_classes_it_is_a_heading(tmp_path: Path) -> None:
    shares.write(tmp_path / "classes.csv", [])
    assert (tmp_path / "classes.csv").read_text() == "class,data,samples\n"
