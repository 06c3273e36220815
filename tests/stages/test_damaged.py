"""Stages refuse damaged results, and files that were not made from each other, by one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddpm import files, tables
from ddpm.data import dataset
from ddpm.errors import FileError, UsageError
from ddpm.sampling import samples as sample_files
from stages.report import report
from tests.imports import ROOT
from tests.stages.conftest import Evaluated, changed, fill, model, run

CURVE = "step,loss,gradient_norm,learning_rate\n"


@pytest.fixture
def reported(evaluated: Evaluated, folder: Path, tmp_path: Path) -> Callable[[], None]:
    """Return a function that runs stage report on the results in tmp_path; measured.json there is the protocol."""
    evaluated(changed())
    (tmp_path / "protocol.json").rename(tmp_path / "measured.json")
    (tmp_path / "train.csv").write_text(CURVE + "7,0.5,1.5,0.1\n")
    for name in ("samples.png", "real.png", "denoising.png", "trajectory.gif", "noising.png"):
        shutil.copy(folder / name, tmp_path)
    arguments = {"protocol": tmp_path / "measured.json", "reports": tmp_path, "defaults": ROOT / "recipes/default.yaml"}
    return lambda: report(changed(), **arguments)


JSON = (b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000)
DAMAGED = {
    "metrics.json": (*JSON, b'{"classifier": 3}', b'{"classifier": {"fid": "low"}}', b'{"classifier": {"fid": true}}'),
    "measured.json": (*JSON, b'{"extractor": "classifier"}'),
    "train.csv": (
        b"",
        b"step,loss\n7,0.5\n",
        CURVE.encode() + b"7,0.5",
        CURVE.encode() + b"7,0.5,1.5,0.1,3\n",
        CURVE.encode() + b"7,low,1.5,0.1\n",
        CURVE.encode() + b"nan,0.5,1.5,0.1\n",
        CURVE.encode() + b"\xff,0.5,1.5,0.1\n",
        CURVE.encode() + b'"' + b"7" * 200_000,
    ),
    "snapshots.csv": (b"", b"step,is\n5,1\n", b"step,fid,is\n5,1\n"),
    "likelihood.csv": (b"", b"t\n1\n", b"t,bits_per_dim,x_0_error\n1,?,3\n"),
    "classes.csv": (b"", b"class,data\nrows,0.5\n", b"class,data,samples\nrows,half,0.5\n"),
    "samples.png": (b"some text",),
}


def test_the_report_refuses_a_damaged_default_recipe(tmp_path: Path) -> None:
    defaults = tmp_path / "default.yaml"
    for content in ("[", "data: {}\n"):
        defaults.write_text(content)
        with pytest.raises(UsageError, match=f"^{defaults} is not (valid YAML|usable):"):
            report(changed(), protocol=tmp_path / "measured.json", reports=tmp_path, defaults=defaults)


def test_the_report_refuses_damaged_results_by_one_line_that_names_the_file(
    reported: Callable[[], None], tmp_path: Path
) -> None:
    for name, contents in DAMAGED.items():
        path = tmp_path / name
        whole = path.read_bytes()
        for content in (*contents, whole[: len(whole) // 2]) if name.endswith("json") else contents:
            path.write_bytes(content)
            with pytest.raises(FileError) as caught:
                reported()
            assert str(caught.value).startswith(str(path)), content
            assert caught.value.path == path
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    reported()
    measured = json.loads((tmp_path / "measured.json").read_text())
    for key in ("warnings", "data_pinned", "train_digest", "matched"):
        (tmp_path / "measured.json").write_text(json.dumps({name: measured[name] for name in measured if name != key}))
        with pytest.raises(FileError, match=rf"measured\.json lacks {key}$"):
            reported()
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    (tmp_path / "train.csv").unlink()
    with pytest.raises(FileError, match=r"train\.csv cannot be read: No such file or directory$"):
        reported()


@pytest.fixture
def replaced(folder: Path, tmp_path: Path) -> Path:
    """A folder with the inputs of stage evaluate, of which a test replaces one."""
    copied = tmp_path / "inputs"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns(".ckpt"))
    return copied


def refused(stage: str, folder: Path, tmp_path: Path) -> str:
    with pytest.raises(FileError) as caught:
        run(stage, folder, changed(), tmp_path / "out")
    return str(caught.value).replace(f"{folder}/", "")


def other_images(path: Path, channels: int = 1) -> None:
    images = torch.zeros(20, channels, 8, 8, dtype=torch.uint8).numpy()
    labels = (torch.arange(20) % 2).numpy()
    dataset.write(path, images, labels, ["rows", "columns"], (channels, 8, 8), {"name": "stripes"})


@pytest.mark.parametrize(
    ("name", "replace", "message"),
    [
        ("model", lambda path: model(path, 9), "samples.safetensors was not made from model"),
        ("test", other_images, "reference.safetensors was not made from test"),
        ("train", other_images, "reference.safetensors was not made from train"),
        ("test", lambda path: other_images(path, 3), "test.safetensors has images of another shape, or of other class"),
        (
            "snapshot-samples",
            lambda path: sample_files.write_snapshots(path, {5: torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}),
            "snapshot-samples.safetensors has images of another shape",
        ),
        (
            "extractor",
            lambda path: files.write_tensors(
                path,
                {name: tensor + 1 for name, tensor in files.read_tensors(path).tensors.items()},
                files.read_metadata(path),
            ),
            "reference.safetensors was not made from extractor",
        ),
    ],
)
def test_evaluate_refuses_files_that_were_not_made_from_each_other(
    name: str, replace: Callable[[Path], None], message: str, replaced: Path, tmp_path: Path
) -> None:
    replace(replaced / f"{name}.safetensors")
    assert refused("evaluate", replaced, tmp_path).startswith(message)


def test_sample_refuses_test_images_of_another_shape(replaced: Path, tmp_path: Path) -> None:
    other_images(replaced / "test.safetensors", 3)
    expected = "test.safetensors has images of another shape than those of model.safetensors"
    assert refused("sample", replaced, tmp_path) == expected


def test_sample_ignores_what_is_no_snapshot(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("00000005 copy.safetensors", ".00000005.safetensors", "notes.safetensors"):
        (tmp_path / "snapshots" / name).write_text("no model")
    (tmp_path / "snapshots/.ipynb_checkpoints").mkdir()
    (tmp_path / "snapshots/steps.json").write_text("{")
    run("sample", tmp_path, changed(), tmp_path / "out")
    drawn = (tmp_path / "out/snapshot-samples.safetensors").read_bytes()
    assert drawn == (folder / "snapshot-samples.safetensors").read_bytes()


def test_a_damaged_extractor_that_was_kept_is_not_copied(folder: Path, tmp_path: Path) -> None:
    run("reference", folder, changed(), tmp_path / "first")
    (kept,) = (tmp_path / ".ckpt").glob("reference-*/extractor.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(FileError, match=f"^{kept} is damaged: its contents do not match its digest$"):
        run("reference", folder, changed(), tmp_path / "second")
    assert not (tmp_path / "second/extractor.safetensors").exists()


def test_curves_of_other_columns_are_read_without_asking_for_any(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text("step,anything\n1,2\n")
    assert tables.read_points(tmp_path / "curve.csv") == [{"step": 1.0, "anything": 2.0}]
