"""Every recipe, with tiny settings, runs from raw images to the report, stage by stage in this process."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ddpm import files
from ddpm.alternatives import in_use
from lab.commands import recipe
from tests.data.files import IDX, encoded, folder_of, write_cifar, write_idx, zip_of
from tests.evaluation.inception import write_random_weights
from tests.imports import ROOT
from tests.pipeline.inprocess import STAGES, run, working_in

NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
OUTPUTS = [
    Path(next(iter(out)) if isinstance(out, dict) else out)
    for stage in STAGES.values()
    for kind in ("outs", "plots", "metrics")
    for out in stage.get(kind, [])
]


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    write_random_weights(path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A working directory with dvc.yaml and the default recipe; MLflow is disabled."""
    with working_in(tmp_path / "project") as folder:
        yield folder


def shrunk(values: dict[str, Any], weights: Path) -> dict[str, Any]:
    """The same experiment with few steps, few images, narrow layers and small images.

    A sampler that uses the full chain still does. With Inception there is only one sample: the distance between
    covariances of 2048 features takes longer than everything else here, and is tested elsewhere.
    """
    data, diffusion, network, train, sample, evaluate = (
        values[name] for name in ("data", "diffusion", "network", "train", "sample", "evaluate")
    )
    if data["image_size"] > 32:
        data["image_size"] //= 4
        network["attention"] = [size // 4 for size in network["attention"]]
    network["channels"] = 8
    if network["kind"] == "unet":
        network["groups"] = 2
    sample["steps"] = 4 if sample["steps"] == diffusion["timesteps"] else 2
    diffusion["timesteps"] = 4
    train |= {"steps": 2, "batch_size": 4, "warmup": min(train["warmup"], 1)}
    sample["count"] = 4
    evaluate["likelihood_images"] = min(evaluate["likelihood_images"], 2)
    if evaluate["extractor"] == "inception":
        evaluate["weights"] = str(weights)
        sample["count"] = 1
    else:
        evaluate["classifier"] |= {"channels": 4, "steps": 4, "batch_size": 8}
    values["runtime"] |= {"device": "cpu", "threads": 1, "data_root": "raw", "checkpoint_every": 1, "preview_every": 2}
    return values


def write_images(data: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a few raw images in the format of the source."""
    if data["source"] in IDX:
        write_idx(root, data["source"], {"train": 12, "t10k": 5})
    elif data["source"] == "cifar10":
        write_cifar(root, monkeypatch, size=1)
    elif data["source"] == "folder":
        files = {
            path: encoded(Image.new("RGB", (40, 36), (80 * index, 200, 0)))
            for index, path in enumerate(("train/a/1.png", "train/b/2.png", "test/b/3.png"))
        }
        root.mkdir()
        write = zip_of if data["path"].endswith(".zip") else folder_of
        write(root / data["path"], files)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_to_its_report(
    name: str, project: Path, inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = shrunk(in_use(yaml.safe_load(recipe.compose(name, ROOT / "recipes"))), inception)
    write_images(values["data"], project / "raw", monkeypatch)
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    for stage in STAGES:
        run(stage)
    assert not [path for path in OUTPUTS if not path.exists()]
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert math.isfinite(metrics[values["evaluate"]["extractor"]]["is"])
    assert ("likelihood" in metrics) == (values["evaluate"]["likelihood_images"] > 0)
    samples = files.read_tensors(Path("data/samples.safetensors")).tensors
    data = values["data"]
    assert samples["images"].shape == (values["sample"]["count"], data["channels"], *[data["image_size"]] * 2)
    assert ("labels" in samples) == values["network"]["conditional"]
