"""Stages that compute something for each image: killed and continued, they repeat at most one batch."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ddpm.evaluation import extractor
from ddpm.params import Params
from ddpm.sampling import samples as sample_files
from lab.experiment import dvcfile, state
from lab.experiment.rows import Batch, Rows
from tests.imports import ROOT
from tests.stages.conftest import changed, command, run, values

# Each stage, and the sizes of its batches: of the samples of the model and of three snapshots, of their features, and
# of the features of 48 and 20 real images.
SIZES = {"sample": [16, 8] * 4, "evaluate": [8] * 3 * 4, "reference": [8] * 6 + [8, 8, 4]}
each_stage = pytest.mark.parametrize(("name", "sizes"), SIZES.items())
KILLED = """
import os, signal
from lab import stage
from lab.experiment import rows
from stages.sample import sample

def count(folder, number):
    if number.done == 16 and folder.name == "00000200":
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, number)

write, rows._write = rows._write, count
stage.run(sample)
"""


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "_BATCH", 8)


class Kept(list[int]):
    """The sizes of the batches that were kept. `last` is the number of batches before the stage is interrupted."""

    last = -1


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    append = Rows.append

    def recorded(rows: Rows, batch: Batch) -> None:
        if len(kept) == kept.last:
            raise KeyboardInterrupt
        append(rows, batch)
        kept.extend({len(tensor) for tensor in batch.values()})

    monkeypatch.setattr(Rows, "append", recorded)
    return kept


def interrupt(name: str, folder: Path, settings: Params, out: Path) -> str:
    """Run a stage that is interrupted; return its message."""
    with pytest.raises(KeyboardInterrupt) as interrupted:
        run(name, folder, settings, out)
    return str(interrupted.value)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@each_stage
def test_interrupted_and_continued_it_repeats_one_batch_and_gives_the_same_bytes(
    name: str,
    sizes: list[int],
    folder: Path,
    tmp_path: Path,
    batches: Kept,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(name, folder, changed(), tmp_path / "at once")
    assert batches == sizes
    batches.clear()
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path / "elsewhere")
    batches.last = len(sizes) * 4 // 5
    reached = f"continues from image {sum(sizes[: batches.last])} of {sum(sizes)}"
    assert interrupt(name, folder, changed(), tmp_path / "continued") == f"the same command {reached}"
    (kept,) = state.folders()
    assert kept.status == f"unfinished at image {sum(batches)} of {sum(sizes)}"
    batches.last = -1
    capsys.readouterr()
    run(name, folder, changed(), tmp_path / "continued")
    assert f"{name}: {reached}\n" in capsys.readouterr().err
    assert batches == sizes
    assert written(tmp_path / "continued") == written(tmp_path / "at once") != {}
    assert kept.finished


@each_stage
def test_after_its_end_nothing_is_computed_again_until_resume_is_false(
    name: str, sizes: list[int], folder: Path, tmp_path: Path, batches: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    run(name, folder, changed(), tmp_path)
    first = written(tmp_path)
    batches.clear()
    capsys.readouterr()
    run(name, folder, changed(), tmp_path)
    assert batches == []
    said = capsys.readouterr().err
    assert f"{name}: continues from image {sum(sizes)} of {sum(sizes)}\n" in said
    assert f": {sum(sizes)}/{sum(sizes)} img" not in said  # a progress bar of nothing
    batches.last = len(sizes) - 1
    anew = changed(runtime={"resume": False})
    assert interrupt(name, folder, anew, tmp_path) == ""  # the same command would begin again
    batches.clear()
    batches.last = -1
    run(name, folder, anew, tmp_path)
    assert batches == sizes
    assert "continues" not in capsys.readouterr().err
    assert written(tmp_path) == first


def test_other_samples_are_other_work(folder: Path, tmp_path: Path, batches: Kept) -> None:
    run("evaluate", folder, changed(), tmp_path)
    samples, _ = sample_files.read(folder / "samples.safetensors")
    others = replace(samples, images=samples.images.flip(0))
    sample_files.write(tmp_path / "others.safetensors", others)
    batches.clear()
    run("evaluate", folder, changed(), tmp_path, samples=tmp_path / "others.safetensors")
    assert batches == SIZES["evaluate"]


def test_killed_between_a_batch_and_its_count_only_this_batch_is_lost(
    folder: Path, tmp_path: Path, batches: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values()))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command("sample", folder, tmp_path / "out")],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    assert killed.returncode == -signal.SIGKILL
    (kept,) = state.folders()
    assert kept.status == "unfinished at image 72 of 96"
    monkeypatch.chdir(tmp_path)
    run("sample", folder, changed(), tmp_path)
    assert batches == [16, 8]
    for name in ("samples.safetensors", "snapshot-samples.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_classifier_is_not_trained_again(
    folder: Path, tmp_path: Path, batches: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches.last = 0
    interrupt("reference", folder, changed(), tmp_path)
    (kept,) = state.folders()
    assert kept.status == "unfinished at image 0 of 68"
    assert not (tmp_path / "reference.safetensors").exists()
    monkeypatch.setattr(extractor, "train_classifier", None)
    batches.last = -1
    run("reference", folder, changed(), tmp_path)
    assert (tmp_path / "extractor.safetensors").read_bytes() == (folder / "extractor.safetensors").read_bytes()
