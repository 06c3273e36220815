"""Work of several processes, of which the first has the state folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ddpm import params
from ddpm.errors import UsageError
from ddpm.params import Runtime
from ddpm.processes import Group
from lab import kept
from lab.experiment import dvcfile
from tests.imports import ROOT

CPU = torch.device("cpu")


class Second(Group):
    """The second of two processes. `said` is what the first passes on."""

    said: list[Any]

    def from_first(self, value: Any) -> Any:
        return self.said.pop(0) if self.said else value


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    return params.check(yaml.safe_load((ROOT / "params.yaml").read_text())).runtime


def second(*said: Any) -> Group:
    group = Second(CPU, 1, 2)
    object.__setattr__(group, "said", list(said))
    return group


def test_a_process_with_other_code_or_parameters_is_refused(runtime: Runtime) -> None:
    with (
        pytest.raises(UsageError, match="differ from those of process 0"),
        kept.work("sample", runtime, second("another fingerprint"), []),
    ):
        pass


def test_the_other_processes_compute_and_write_nothing(runtime: Runtime, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    with kept.work("sample", runtime, second(), []) as work:
        work.file(tmp_path / "file", lambda path: path.write_text("made"))
        work._group.said.append({"a": 3, "b": 16})  # type: ignore[attr-defined]
        found = work.rows("sample", {"a": 3, "b": 40}, lambda name, done: iter(asked.append((name, done)) or ()))
    assert found is None
    assert asked == [("b", 16)]  # process 0 has all rows of the first
    assert list(tmp_path.iterdir()) == []
