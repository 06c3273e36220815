"""`ddpm export` and `ddpm import`: models leave and come, and the pipeline evaluates what came."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DDPMPipeline

from ddpm import params
from ddpm.interop.weights import Imported
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.params import Gaussian, UNetNetwork
from lab.commands import import_, recipe
from tests.commands import fails, run

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def description(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Description:
    changes = {"variance": "learned_range", "prediction": "v"}
    return Description(diffusion_settings.model_copy(update=changes), network_settings, (3, 8, 8), ("cat", "dog"))


@pytest.fixture
def model_file(tmp_path: Path, description: Description) -> Path:
    torch.manual_seed(0)
    weights = {name: torch.randn(weight.shape) for name, weight in description.build().state_dict().items()}
    path = tmp_path / "model.safetensors"
    modelfile.save(path, description, weights)
    return path


def test_exported_folder_is_a_pipeline_of_the_same_weights(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    result = run("export", "--model", model_file, "--out", out)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    pipeline = DDPMPipeline.from_pretrained(out, local_files_only=True)
    assert pipeline.unet.conv_in.weight.equal(modelfile.load(model_file).network.get_parameter("first.weight"))
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]


def test_equal_models_are_exported_in_equal_bytes(model_file: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert run("export", "--model", model_file, "--out", tmp_path / name).exit_code == 0
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_imported_model_has_the_weights_of_the_exported_one(
    model_file: Path, tmp_path: Path, description: Description
) -> None:
    run("export", "--model", model_file, "--out", tmp_path / "exported")
    result = run("import", tmp_path / "exported", "--out", tmp_path / "back.safetensors")
    assert result.exit_code == 0, result.output
    back, model = modelfile.load(tmp_path / "back.safetensors"), modelfile.load(model_file)
    assert back.digest == model.digest
    assert (back.description.diffusion, back.description.network) == (description.diffusion, description.network)


def test_import_and_export_keep_the_variance_and_the_clipping(
    tmp_path: Path, model_file: Path, description: Description
) -> None:
    fixed = replace(description, diffusion=description.diffusion.model_copy(update={"variance": "fixed"}))
    modelfile.save(model_file, fixed, fixed.build().state_dict())
    run("export", "--model", model_file, "--out", tmp_path / "exported", "--sigma", "small", "--no-clip")
    result = run("import", tmp_path / "exported", "--out", tmp_path / "back.safetensors")
    sample = yaml.safe_load(result.stdout)["sample"]
    assert (sample["sigma"], sample["clip"]) == ("small", False)


def test_import_prints_the_recipe_that_evaluates_the_model(
    model_file: Path, tmp_path: Path, description: Description
) -> None:
    run("export", "--model", model_file, "--out", tmp_path / "exported")
    out = tmp_path / "back.safetensors"
    printed = run("import", tmp_path / "exported", "--out", out).stdout
    count = sum(parameter.numel() for parameter in description.build().parameters())
    assert printed.startswith(f"# back.safetensors: {count:,} parameters, 3 x 8 x 8 images, schedule linear, predicti")
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "default.yaml").write_text((RECIPES / "default.yaml").read_text())
    (folder / "imported.yaml").write_text(printed)
    with pytest.raises(params.ParamsError) as caught:  # never the default's images, which would be padded to fit
        recipe.compose("imported", folder)
    assert str(caught.value) == ("recipe imported is not usable:\n  data.path = None: must be set for source folder")
    (folder / "imported.yaml").write_text(printed.replace("path: null", "path: images.zip"))
    settings = params.check(yaml.safe_load(recipe.compose("imported", folder)))
    assert (settings.train.steps, settings.data.image_size, settings.data.channels) == (0, 8, 3)
    assert (settings.sample.sampler, settings.sample.sigma, settings.sample.steps) == ("ancestral", None, 20)
    shape = (settings.data.channels, settings.data.image_size, settings.data.image_size)
    evaluated = Description(settings.diffusion, settings.network, shape, ("of", "the", "data"))
    start = Path(str(settings.train.init))
    assert modelfile.initialise(evaluated.build(), start) == modelfile.load(out).digest
    modelfile.check_compatible(start, evaluated, whole=True)


@pytest.mark.parametrize(("place", "init"), [("data/raw/x/m.safetensors", "x/m.safetensors"), ("m.safetensors", None)])
def test_a_model_in_the_folder_of_datasets_is_named_relative_to_it(
    place: str, init: str | None, model_file: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = repository / "exported"
    run("export", "--model", model_file, "--out", exported)
    (repository / "data/raw/x").mkdir(parents=True)
    monkeypatch.chdir(repository / "data")
    result = run("import", exported, "--out", f"../{place}")
    assert result.exit_code == 0, result.output
    assert "`ddpm data PATH --dry-run`" in result.stdout
    assert yaml.safe_load(result.stdout)["train"]["init"] == (init or str(repository / place))


@pytest.mark.parametrize(("size", "said"), [(32, True), (16, False)])
def test_recipe_with_the_size_of_cifar10_names_the_source(
    description: Description, tmp_path: Path, size: int, said: bool
) -> None:
    network = description.network.model_copy(update={"attention": []})
    described = replace(description, network=network, image_shape=(3, size, size))
    imported = Imported(described, described.build().state_dict(), {"sigma": None, "clip": True})
    printed = import_.recipe(imported, tmp_path / "model.safetensors", None)
    assert ("\n# If its images are CIFAR-10's, set `data.source` to cifar10.\n" in printed) == said
    shutil.copy(RECIPES / "default.yaml", tmp_path)
    named = printed.replace("source: folder", "source: cifar10")
    (tmp_path / "imported.yaml").write_text(named)
    settings = params.check(yaml.safe_load(recipe.compose("imported", tmp_path)))
    assert (settings.data.source, settings.data.image_size) == ("cifar10", size)


def test_checkpoint_file_is_read_by_its_official_names(tmp_path: Path) -> None:
    torch.save({"conv_in.weight": torch.zeros(2)}, tmp_path / "model.ckpt")
    said = fails("import", tmp_path / "model.ckpt", "--out", tmp_path / "out.safetensors")
    assert said.startswith(f"ddpm: {tmp_path}/model.ckpt does not have the names of the paper's U-Net")


def test_failed_import_is_one_message_and_leaves_no_file(model_file: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "exported", tmp_path / "out.safetensors"
    run("export", "--model", model_file, "--out", folder)
    config = folder / "unet" / "config.json"
    blocks = {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | blocks))
    assert fails("import", folder, "--out", out) == (
        f"ddpm: {config} cannot be imported:\n"
        f"  down_block_types.1 = 'CrossAttnDownBlock2D': must be 'DownBlock2D' or 'AttnDownBlock2D'"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fails("import", empty, "--out", out) == (
        f"ddpm: {empty} is not a model of diffusers: scheduler_config.json is missing"
    )
    assert fails("import", tmp_path / "absent", "--out", out) == f"ddpm: {tmp_path}/absent does not exist"
    (tmp_path / "text.ckpt").write_text("hello")
    assert fails("import", tmp_path / "text.ckpt", "--out", out) == (
        f"ddpm: {tmp_path}/text.ckpt is not a file of tensors: it is not a complete PyTorch checkpoint of tensors; "
        f"download it again, or save only the state_dict of the network"
    )
    assert not out.exists()


def test_model_that_cannot_be_written_is_one_message(model_file: Path, tmp_path: Path) -> None:
    run("export", "--model", model_file, "--out", tmp_path / "exported")
    said = fails("import", tmp_path / "exported", "--out", tmp_path / "exported")
    assert said == f"ddpm: {tmp_path}/exported: a folder or a device has that name"


def test_failed_export_is_one_message(model_file: Path, tmp_path: Path, description: Description) -> None:
    absent = tmp_path / "absent.safetensors"
    assert fails("export", "--model", absent, "--out", tmp_path / "out") == f"ddpm: {absent} does not exist"
    said = fails("export", "--model", model_file, "--out", model_file)
    assert said == f"ddpm: {model_file}: a file has that name"
    mean = replace(description, diffusion=description.diffusion.model_copy(update={"prediction": "mu"}))
    modelfile.save(model_file, mean, mean.build().state_dict())
    said = fails("export", "--model", model_file, "--out", tmp_path / "out")
    assert said.startswith("ddpm: diffusers cannot express this model:\n  diffusion.prediction = 'mu'")
    assert not (tmp_path / "out").exists()
