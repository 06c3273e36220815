"""The benchmarks compute what they print: ratios, operations, equal weights, and parts that continue."""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import __main__ as command
from benchmarks import data, gpu, limit, others, ours, recipes, scale, timing
from benchmarks.parts import measures, speeds
from benchmarks.parts import part as parts
from benchmarks.parts.part import OutOfTimeError, Part
from ddpm import params
from ddpm.data import dataset
from ddpm.evaluation import features, fidelity
from ddpm.evaluation.features import Features
from ddpm.params import Params
from lab.commands import recipe
from tests.imports import ROOT
from tests.test_house import ALONE

CPU = torch.device("cpu")


@pytest.fixture
def tiny() -> Params:
    """The paper's CIFAR-10 recipe with a tiny network, and attention at 16 x 16."""
    return parts.params(True, {"train.batch_size": 2})


@pytest.fixture
def part(tmp_path: Path) -> Callable[..., Part]:
    def make(left: float = 1000.0, limit: float = 1000.0, miniature: bool = True, name: str = "training-speed") -> Part:
        return Part(name, tmp_path, CPU, time.time() + left, limit, miniature, None)

    return make


def test_help_lists_every_module_that_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef run(" in path.read_text("utf-8")}
    assert command.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert modules <= command.COMMANDS.keys()
    assert all(f"  {name} " in shown for name in command.COMMANDS)


def test_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    durations = timing.Durations({"a": [1.0, 2.0, 8.0], "b": [2.0, 6.0, 8.0]})
    assert vars(durations.ratio("a", "b")) == {"median": 2.0, "least": 1.0, "most": 3.0}
    assert durations.speed("a", 4).median == 2.0


def test_cases_alternate_and_the_first_round_is_not_counted() -> None:
    called: list[str] = []
    cases = {name: lambda name=name: called.append(name) for name in "ab"}
    durations = timing.interleaved(cases, CPU, rounds=2, calls=1)
    assert "".join(called) == "ba" + "ab" + "ba"
    assert {name: len(values) for name, values in durations.seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize("name", sorted(recipe.names(ROOT / "recipes")))
def test_settings_of_a_recipe_are_those_of_the_command(name: str) -> None:
    composed = params.check(yaml.safe_load(recipe.compose(name, ROOT / "recipes")))
    assert recipes.settings(name, {}) == composed


def test_operations_are_those_that_torch_counts(tiny: Params) -> None:
    described = recipes.description(tiny)
    network = recipes.network(described)
    found = limit.products(network, described.image_shape, 3)
    for train in (False, True):
        plain = sdpa_kernel(SDPBackend.MATH)  # others compute a product again in the backward pass
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train), plain:
            x = torch.rand(3, *described.image_shape)
            loss = network(x, torch.zeros(3, dtype=torch.int64)).sum()
            if train:
                loss.backward()
        assert limit.flops(found, train) == counter.get_total_flops()


def test_the_limit_computes_every_product_of_the_network(tiny: Params) -> None:
    described = recipes.description(tiny)
    found = limit.products(recipes.network(described), described.image_shape, 2)
    for train in (False, True):
        run = limit.alone(found, CPU, torch.bfloat16, torch.channels_last, train)
        with FlopCounterMode(display=False) as counter:
            run()
        assert counter.get_total_flops() == limit.flops(found, train)
    assert {p.kind for p in found} == {"conv", "linear", "attention"}


def test_diffusers_has_the_same_weights(tiny: Params) -> None:
    described = recipes.description(tiny)
    here = recipes.network(described).eval()
    unet, _ = others.diffusers_unet(tiny, CPU, channels_last=True)
    x, t = torch.rand(2, *described.image_shape), torch.tensor([3, 700])
    with torch.no_grad():
        torch.testing.assert_close(unet.eval()(x, t).sample, here(x, t), rtol=1e-3, atol=1e-4)


def test_every_case_takes_a_step(tiny: Params) -> None:
    for case in (
        ours.training(tiny, CPU),
        others.diffusers_training(tiny, CPU, best=True),
        ours.sampling(tiny, CPU, 2, 3, "bf16"),
        others.diffusers_sampling(tiny, CPU, 2, 3, best=True),
    ):
        assert case() is not None


def test_fid_and_inception_score_without_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "IS_SPLITS", 1)  # torch-fidelity shuffles before it splits
    draw = np.random.default_rng(0)
    first, second = (
        Features(*(torch.from_numpy(draw.normal(shift, 1, (200, size)).astype("float32")) for size in (12, 5)))
        for shift in (0.0, 0.3)
    )
    assert measures.frechet(first.features, second.features) == pytest.approx(fidelity.fid(first, second), rel=1e-4)
    assert measures.inception_score(first.logits) == pytest.approx(fidelity.inception_score(first)[0], rel=1e-4)


def test_overhead_is_a_share_of_the_step() -> None:
    assert scale.overhead({"tree": 10.0, "waiting only": 7.0, "exchange alone": 2.0}) == pytest.approx(0.1)


def test_a_part_measures_only_the_rows_that_it_lacks(
    part: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ("eager, batch 2, bf16", "eager, batch 4, fp32, deterministic")
    part().add(first, {"images_per_second": 5.0})
    monkeypatch.setattr(speeds, "_row", lambda *_: pytest.fail("is measured again") if len(done.rows) > 1 else {"x": 1})
    done = part()
    speeds.training(done)
    assert done.rows == {first: {"images_per_second": 5.0}, second: {"x": 1}}


def test_a_row_that_fails_does_not_hide_the_next(part: Callable[..., Part], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image\nmore lines")

    monkeypatch.setattr(speeds, "_row", fail)
    measured = part()
    speeds.training(measured)
    assert [row["failed"] for row in measured.rows.values()] == ["RuntimeError: no kernel image"] * 2


def test_time_that_is_over_is_over_for_this_run_or_for_good(part: Callable[..., Part]) -> None:
    with pytest.raises(OutOfTimeError) as run:
        part(left=5.0, miniature=False).require(20)
    assert not run.value.for_good
    with pytest.raises(OutOfTimeError) as whole:
        part(limit=5.0, miniature=False).require(20)
    assert whole.value.for_good


def test_a_row_that_does_not_end_is_given_up(part: Callable[..., Part]) -> None:
    part().start("graphs, batch 128, bf16", 10)
    part().give_up()
    assert part().rows == {"graphs, batch 128, bf16": {"failed": "it did not end in time"}}
    part().give_up()  # nothing is under way
    assert len(part().rows) == 1


def test_the_seconds_of_earlier_runs_count(part: Callable[..., Part]) -> None:
    earlier = part(limit=100.0)
    earlier.begin -= 90
    earlier.save(complete=False)
    assert part(limit=100.0).left() == pytest.approx(10, abs=2)


def test_the_parts_need_only_the_packages_of_the_library() -> None:
    absent = {"dvc", "mlflow", "ruamel", "pandas", "sklearn", "matplotlib", "PIL", "tqdm", "torch_fidelity", "jinja2"}
    absent |= {"typer", "filelock", "diffusers", "lab"}
    script = ALONE.format(absent=absent, modules=["benchmarks.gpu", "benchmarks.shared_step"])
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def images(path: Path) -> Path:
    """A .zip of random images of two classes in two splits."""
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name in (f"{split}/{label}/{n}.png" for split in ("train", "test") for label in "ab" for n in range(12)):
            content = BytesIO()
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(content, "PNG")
            archive.writestr(name, content.getvalue())
    return path


@pytest.mark.slow
def test_gpu_is_killed_and_continues(tmp_path: Path) -> None:
    folder, first = tmp_path / "results", "eager, batch 2, bf16"
    arguments = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--miniature", "--folder", str(folder)]
    arguments += ["--data", str(images(tmp_path / "images.zip"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, start_new_session=True)
    while first not in ((parts.read(folder, "training-speed") or {"rows": {}})["rows"]):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)  # the part ends by itself
    rows = (folder / "training-speed.json").read_text(encoding="utf-8")
    measured = json.loads(rows)["rows"][first]
    assert not parts.is_complete(folder, "training")

    result = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "all parts are complete" in result.stdout, result.stdout + result.stderr
    found = {name: parts.read(folder, name) for name in gpu.PARTS}
    contents = {name: each["rows"] for name, each in found.items() if each}
    assert contents["training-speed"][first] == measured
    assert contents["determinism"]["bf16"]["same_bytes_killed_and_continued"]
    assert contents["processes"]["gloo, 2 of digits"]["same_bytes"]
    assert contents["training"]["training"]["steps"] > 0
    assert "failed" not in json.dumps(contents)
    assert {path.name for path in (folder / "training").iterdir()} >= {"samples.png", "loss.csv", "loss.png"}
    if importlib.util.find_spec("torch_fidelity"):
        assert contents["training"]["metrics"]["computed_by"] == "ddpm.evaluation"


def test_features_of_large_data_are_written_as_stage_reference_writes_them(tmp_path: Path) -> None:
    options = argparse.Namespace(features=8, device="cpu", threads=1)
    for split, count in (("train", 5), ("test", 3)):
        images = np.zeros((count, 3, 64, 64), np.uint8)
        dataset.write(tmp_path / f"{split}.safetensors", images, np.zeros(count, np.int64), ["one"], (3, 64, 64), {})
    assert data.reference(tmp_path, options)["images"] == 8
    assert features.read(tmp_path / "reference.safetensors").train.features.shape == (5, 8)
