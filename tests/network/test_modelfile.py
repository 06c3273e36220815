"""A model file restores the saved model."""

from pathlib import Path

import pytest
import torch

from ddpm import files
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.network.unet import UNet
from ddpm.params import Gaussian, UNetNetwork


@pytest.fixture
def description(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Description:
    return Description(diffusion_settings, network_settings, (3, 8, 8), ["cat", "dog"])


@pytest.fixture
def network(description: Description) -> UNet:
    """A network with random values in every parameter."""
    torch.manual_seed(0)
    network = description.build()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture
def path(tmp_path: Path, description: Description, network: UNet) -> Path:
    path = tmp_path / "model.safetensors"
    modelfile.save(path, description, network.state_dict())
    return path


def test_loaded_model_computes_the_same_as_the_saved_model(path: Path, description: Description, network: UNet) -> None:
    model = modelfile.load(path)
    assert model.description == description
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 20])
    predicted, _ = model.denoiser.output(x, t)
    torch.testing.assert_close(predicted, network(x, t - 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(model.network.state_dict()), dict(network.state_dict()), rtol=0, atol=0)


def test_a_model_in_bf16_computes_nearly_the_same_and_returns_fp32(path: Path) -> None:
    exact, rounded = modelfile.load(path).denoiser, modelfile.load(path, precision="bf16")
    assert {weight.dtype for weight in rounded.network.parameters()} == {torch.bfloat16}
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 20])
    (expected, _), (found, _) = exact.output(x, t), rounded.denoiser.output(x, t)
    assert found.dtype == rounded.denoiser(x, t, clip=True).x_0.dtype == torch.float32
    assert not found.equal(expected)
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_loaded_model_has_the_saved_process_and_value_range(
    tmp_path: Path, description: Description, network: UNet
) -> None:
    changes = {"timesteps": 30, "beta_end": 0.1, "value_range": [0.0, 1.0]}
    changed = Description(description.diffusion.model_copy(update=changes), description.network, (3, 8, 8), [])
    modelfile.save(tmp_path / "m.safetensors", changed, network.state_dict())
    denoiser = modelfile.load(tmp_path / "m.safetensors").denoiser
    assert denoiser.process.timesteps == 30
    assert list(denoiser.value_range) == [0.0, 1.0]
    assert denoiser.process.alpha_bar[1].item() == pytest.approx(0.99)


def test_loaded_model_is_in_evaluation_mode_and_requires_no_gradient(
    path: Path, description: Description, network: UNet
) -> None:
    dropping = Description(
        description.diffusion, description.network.model_copy(update={"dropout": 0.5}), (3, 8, 8), ["cat", "dog"]
    )
    modelfile.save(path, dropping, network.state_dict())
    loaded = modelfile.load(path).network
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_equal_models_have_equal_bytes_and_different_models_different_digests(
    tmp_path: Path, path: Path, description: Description, network: UNet
) -> None:
    again = tmp_path / "again.safetensors"
    modelfile.save(again, description, dict(reversed(network.state_dict().items())))
    assert again.read_bytes() == path.read_bytes()
    first = modelfile.load(path).digest
    torch.nn.init.ones_(network.last.get_parameter("bias"))
    modelfile.save(again, description, network.state_dict())
    assert modelfile.load(again).digest != first


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(files.TensorFileError, match=r"nowhere\.safetensors does not exist"):
        modelfile.load(tmp_path / "nowhere.safetensors")


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    files.write_tensors(path, {"images": torch.zeros(2)}, {"format": "ddpm-dataset-1"})
    expected = r"has the format ddpm-dataset-1 \(packed images\): expected ddpm-model-1 \(a model\)"
    with pytest.raises(files.TensorFileError, match=expected):
        modelfile.load(path)


def test_training_starts_from_the_weights_of_a_model_file(path: Path, description: Description, network: UNet) -> None:
    torch.manual_seed(1)
    other = description.build()
    digest = modelfile.initialise(other, path)
    torch.testing.assert_close(dict(other.state_dict()), dict(network.state_dict()), rtol=0, atol=0)
    assert digest == modelfile.load(path).digest
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_training_cannot_start_from_a_model_of_another_shape(path: Path, network_settings: UNetNetwork) -> None:
    wider = UNet(network_settings.model_copy(update={"channels": 12}), 3, 8, 3, 0)
    with pytest.raises(files.TensorFileError, match=r"train\.init = .*model\.safetensors"):
        modelfile.initialise(wider, path)
