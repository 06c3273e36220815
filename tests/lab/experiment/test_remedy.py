"""How to restore a file, from what wrote it."""

from pathlib import Path

import pytest

from ddpm.errors import FileError, UsageError
from lab.experiment import remedy


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("path", "command", "stage"),
    [
        ("models/model.safetensors", "rm {} && dvc checkout {}", "train"),
        ("models/snapshots/00000005.safetensors", "rm {} && dvc checkout {}", "train"),
        ("data/protocol.json", "rm {} && dvc checkout {}", "evaluate"),
        ("reports/metrics.json", "git restore {}", "evaluate"),
        ("reports/samples.png", "git restore {}", "sample"),
        ("reports/train.csv", "git restore {}", "train"),
    ],
)
def test_an_output_of_a_stage_is_restored_or_made_again(path: str, command: str, stage: str) -> None:
    expected = f"; `{command.format(path, path)}` restores it, `dvc repro --force --single-item {stage}` makes it again"
    for one in (Path(path), Path(path).absolute()):
        assert remedy.of(FileError("damaged", one)) == expected.replace(path, str(one))


def test_a_state_is_removed(repository: Path) -> None:
    path = repository / ".ckpt/abc/step-00000007.safetensors"
    assert remedy.of(FileError("damaged", path)) == "; remove that file, or start anew with -S runtime.resume=false"


@pytest.mark.parametrize("path", ["elsewhere/model.safetensors", "data/raw/images.zip", "models"])
def test_another_file_has_no_remedy(path: str, repository: Path) -> None:
    assert remedy.of(FileError("damaged", Path(path))) == ""
    assert remedy.of(UsageError("models/model.safetensors is damaged")) == ""
    (repository / "dvc.yaml").write_text("[")
    assert remedy.of(FileError("damaged", Path("models/model.safetensors"))) == ""
