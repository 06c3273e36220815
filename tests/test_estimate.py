"""What the stages need: memory and files, compared with what they hold and write."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm import estimate
from ddpm.data.dataset import Dataset
from ddpm.estimate import Need
from ddpm.evaluation import extractor
from ddpm.network import modelfile
from ddpm.params import Train, UNetNetwork, check
from ddpm.sampling import samples
from ddpm.training import checkpoint
from ddpm.training.curve import LossCurve
from ddpm.training.loop import train
from tests.test_params import changed
from tests.training.runs import start

HEADER = 0.05  # share of a small file that is no tensor


def needs(changes: dict[str, Any]) -> dict[str, Need]:
    return estimate.experiment(check(changed(changes))).stages


def test_the_state_and_the_model_have_the_estimated_size(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Any, tmp_path: Path
) -> None:
    run = start(train_settings, network_settings.model_copy(update={"channels": 32}), diffusion_settings)
    next(train(run.learner, run.denoiser, run.batches, train_settings))
    checkpoint.save(tmp_path / "state.safetensors", run.learner, LossCurve(1, torch.device("cpu")), "name")
    description = modelfile.Description(
        diffusion_settings, network_settings.model_copy(update={"channels": 32}), (3, 8, 8), ["one"]
    )
    modelfile.save(tmp_path / "model.safetensors", description, run.learner.average.state_dict())
    network = network_settings.model_dump() | {"channels": 32}
    changes = {f"network.{key}": value for key, value in network.items()} | {"data.channels": 3}
    need = needs(changes)["train"]
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert need.outputs == pytest.approx(written, rel=HEADER)
    assert need.outputs < written
    assert need.kept == pytest.approx(2 * (tmp_path / "state.safetensors").stat().st_size, rel=HEADER)


def test_the_extractor_has_the_estimated_size(tmp_path: Path) -> None:
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    split = Dataset(images, torch.arange(20) % 10, list("0123456789"), "", {})
    params = check(
        changed({"evaluate.classifier": {"channels": 32, "steps": 1, "batch_size": 4, "learning_rate": 0.1}})
    )
    path = tmp_path / "extractor.safetensors"
    assert params.evaluate.classifier is not None
    extractor.train_classifier(split, split, params.evaluate.classifier, 0, path, torch.device("cpu"))
    features = 1797 * 4 * (4 * 32 + 10)
    assert estimate.experiment(params).stages["reference"].outputs - features == pytest.approx(
        path.stat().st_size, rel=HEADER
    )


def test_samples_have_the_estimated_size(tmp_path: Path) -> None:
    path = tmp_path / "samples.safetensors"
    samples.write(path, samples.Samples(torch.zeros(1500, 1, 8, 8, dtype=torch.uint8), None, {}, ""))
    assert needs({})["sample"].outputs == pytest.approx(path.stat().st_size, rel=HEADER)


def test_images_of_a_known_source_have_the_estimated_size() -> None:
    assert needs({"data.source": "cifar10"})["prepare"].outputs == 60_000 * (3 * 32 * 32 + 8)
    folder = {"data.source": "folder", "data.path": "a", "data.image_size": 8, "data.channels": 1}
    assert needs(folder)["prepare"].outputs == 0


@pytest.mark.parametrize(("accumulate", "copies"), [(1, 5), (2, 5), (4, 6), (16, 8), (6, 6), (3, 5)])
def test_a_tree_of_micro_batches_holds_a_gradient_for_each_level(accumulate: int, copies: int) -> None:
    """Weights, their average, two moments, and the gradients."""
    need = needs({"train.batch_size": 48, "train.accumulate": accumulate})["train"]
    assert need.weights == copies * 4 * 701_345
    assert need.images == 48 // accumulate


def test_a_model_that_is_not_trained_needs_no_batch() -> None:
    need = needs({"train.steps": 0, "train.init": "model.safetensors", "train.batch_size": 1_000_000})["train"]
    assert (need.batch, need.certain) == (0, 2 * 4 * 701_345)


@pytest.mark.parametrize("changes", [{"train.precision": "bf16"}, {"runtime.compile": True}])
def test_less_memory_is_certain_to_be_needed_where_activations_may_be_smaller(changes: dict[str, Any]) -> None:
    exact, smaller = needs({})["train"], needs(changes)["train"]
    assert exact.certain == exact.memory - exact.weights // 5  # gradients take the place of activations
    assert smaller.certain - 4 * smaller.weights // 5 == pytest.approx(exact.batch / 4, abs=1)


def test_a_batch_of_samples_is_whole_blocks_and_at_most_their_number() -> None:
    found = [needs({"sample.batch_size": size, "sample.count": 40})["sample"].images for size in (1, 16, 40, 256)]
    assert found == [16, 16, 32, 40]


def test_snapshots_are_models_and_samples() -> None:
    none, two = needs({}), needs({"train.snapshots": [1, 2]})
    assert two["train"].outputs - none["train"].outputs == 2 * 4 * 701_345
    assert two["sample"].outputs == 3 * none["sample"].outputs


def test_the_largest_values_are_estimated_at_once() -> None:
    """The numbers are integers of Python, which have no largest one."""
    largest = {
        "data.image_size": 4096,
        "network.channels": 16_384,
        "network.multipliers": [4096] * 13,
        "network.blocks": 100,
        "network.attention": [4096 >> level for level in range(13)],
        "train.batch_size": 1_000_000,
        "train.snapshots": list(range(1, 1001)),
        "sample.count": 100_000_000,
        "sample.batch_size": 1_000_000,
    }
    chosen = estimate.experiment(check(changed(largest)))
    assert chosen.parameters > 10**19
    assert chosen.stages["train"].memory > 10**25
