"""Stage sample on a tiny conditional model with snapshots."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm import figures
from ddpm.network import modelfile
from ddpm.sampling import blocks
from ddpm.sampling import samples as sample_files
from stages.sample import spread
from tests.stages.conftest import changed, run


def test_guided_samples_have_all_classes_in_turn(folder: Path) -> None:
    samples, _ = sample_files.read(folder / "samples.safetensors")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1] * 12
    model = modelfile.load(folder / "model.safetensors")
    assert samples.images.equal(blocks.draw(model, changed().sample, samples.labels))


def test_samples_without_guidance_have_no_labels(folder: Path, tmp_path: Path) -> None:
    settings = changed(sample={"guidance": None, "count": 5})
    run("sample", folder, settings, tmp_path)
    samples, _ = sample_files.read(tmp_path / "samples.safetensors")
    assert samples.labels is None
    assert samples.images.equal(blocks.draw(modelfile.load(folder / "model.safetensors"), settings.sample))


def test_samples_in_bf16_are_of_a_network_with_bf16_weights(folder: Path, tmp_path: Path) -> None:
    settings = changed(sample={"precision": "bf16", "guidance": None, "count": 5})
    run("sample", folder, settings, tmp_path)
    samples, _ = sample_files.read(tmp_path / "samples.safetensors")
    assert samples.settings["precision"] == "bf16"
    model = modelfile.load(folder / "model.safetensors", precision="bf16")
    assert samples.images.equal(blocks.draw(model, settings.sample))
    exact = modelfile.load(folder / "model.safetensors")
    assert not samples.images.equal(blocks.draw(exact, settings.sample))


@pytest.mark.parametrize(("compile", "sizes"), [(True, [16] * 3), ("auto", []), (False, [])])
def test_whole_batches_are_drawn_by_a_compiled_network_if_the_line_says_so(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    compile: object,
    sizes: list[int],
) -> None:
    seen: list[int] = []

    def uncompiled(network: Callable[..., Tensor], **_options: object) -> Callable[..., Tensor]:
        return lambda x, *rest: (seen.append(len(x)), network(x, *rest))[1]

    monkeypatch.setattr(torch, "compile", uncompiled)
    (tmp_path / "snapshots").mkdir()
    for name in ("model.safetensors", "test.safetensors"):
        (tmp_path / name).symlink_to(folder / name)
    run("sample", tmp_path, changed(sample={"guidance": 0.0}, runtime={"compile": compile}), tmp_path)
    assert seen == sizes  # three steps of the first 16 images; the other 8 images run uncompiled
    said = [line for line in capsys.readouterr().err.splitlines() if "compile" in line]
    start = "sample: compiles the network" if sizes else "sample: does not compile the network (auto)"
    assert [line.startswith(start) for line in said] == [True] * bool(compile)
    same = sample_files.read(tmp_path / "samples.safetensors")[0].images
    model = modelfile.load(folder / "model.safetensors")
    assert same.equal(blocks.draw(model, changed(sample={"guidance": 0.0}).sample, torch.arange(24) % 2))


def test_samples_of_a_snapshot_are_drawn_from_that_snapshot(folder: Path) -> None:
    drawn = sample_files.read_snapshots(folder / "snapshot-samples.safetensors")
    assert list(drawn) == [5, 30, 200]
    labels = torch.arange(24) % 2
    for step, images in drawn.items():
        snapshot = modelfile.load(folder / f"snapshots/{step:08d}.safetensors")
        assert images.equal(blocks.draw(snapshot, changed().sample, labels))


def test_shown_real_images_are_evenly_spaced() -> None:
    images = torch.arange(1000).view(1000, 1, 1, 1)
    assert spread(images, 4).flatten().tolist() == [0, 333, 666, 999]
    assert spread(images[:3], 4).flatten().tolist() == [0, 1, 2]


def test_pictures_of_samples_and_real_images_have_the_same_layout(folder: Path) -> None:
    with Image.open(folder / "samples.png") as drawn, Image.open(folder / "real.png") as real:
        assert drawn.width == real.width
        rows = [(picture.height - 2) // 50 for picture in (drawn, real)]
    assert rows == [3, 2]  # 24 samples, and all 20 test images


def test_the_animation_ends_with_the_first_samples(folder: Path) -> None:
    samples = sample_files.read(folder / "samples.safetensors")[0].images
    with Image.open(folder / "trajectory.gif") as animation:
        assert animation.n_frames == 4  # three steps
        animation.seek(3)
        shown = np.asarray(animation.convert("L"))
    expected = np.asarray(figures.grid(samples[:9], 3))
    assert np.abs(shown.astype(int) - expected).max() <= 1  # another batch size changes the rounding
