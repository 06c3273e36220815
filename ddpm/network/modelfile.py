"""A trained model in one file, with the description that rebuilds and samples it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from ddpm import files
from ddpm.device import Precision, compiled_for_inference, dtype, memory_format
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.basic import BasicUNet
from ddpm.network.unet import UNet
from ddpm.params import BasicNetwork, Diffusion, Network

FORMAT = "ddpm-model-1"
_NOT_IN_SHAPES = {
    "heads",
    "groups",
    "norm_eps",
    "time",
    "downsample",
}  # settings that the shapes of weights do not show


@dataclass(frozen=True)
class Description:
    """Everything about a model except its weights."""

    diffusion: Diffusion
    network: Network
    image_shape: tuple[int, int, int]  # (C, H, W)
    classes: Sequence[str]  # of the training images

    def build(self) -> UNet | BasicUNet:
        """A new network, its weights initialised by torch's global generator."""
        channels, size, _ = self.image_shape
        if isinstance(self.network, BasicNetwork):
            signed = self.diffusion.prediction != "x_0" or self.diffusion.value_range[0] < 0
            return BasicUNet(self.network, channels, signed)
        outputs = channels if self.diffusion.variance == "fixed" else 2 * channels
        return UNet(self.network, channels, size, outputs, len(self.classes))


@dataclass(frozen=True)
class Model:
    """A trained network, ready to denoise."""

    description: Description
    network: nn.Module
    denoiser: Denoiser
    digest: str  # sha256 of the weights

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(weights.numel() for weights in self.network.parameters())

    def compiled(self, deterministic: bool, batch_size: int) -> "Model":
        """The same model, its network compiled as `compiled_for_inference` does."""
        process = self.denoiser.process
        network = compiled_for_inference(self.network, process.device, deterministic, batch_size)
        return replace(self, denoiser=replace(self.denoiser, network=network))


def save(path: Path, description: Description, weights: Mapping[str, Tensor]) -> None:
    """Write the weights (a `state_dict`) with their description."""
    metadata = {
        "format": FORMAT,
        "diffusion": description.diffusion.model_dump(),
        "network": description.network.model_dump(),
        "image_shape": list(description.image_shape),
        "classes": list(description.classes),
    }
    files.write_tensors(path, weights, metadata)


def load(path: Path, device: torch.device | str = "cpu", precision: Precision = "fp32") -> Model:
    """Load a model in evaluation mode.

    With bf16 its weights are converted once. The network then computes in bf16, but the sinusoids of the times and the
    sums of the normalisations in fp32. Images stay fp32. Raises `TensorFileError` if the file does not exist or holds
    no model of this format.
    """
    file = files.read_tensors(path, FORMAT)
    try:
        description = Description(
            TypeAdapter[Diffusion](Diffusion).validate_python(file.metadata["diffusion"]),
            TypeAdapter[Network](Network).validate_python(file.metadata["network"]),
            tuple(file.metadata["image_shape"]),
            file.metadata["classes"],
        )
        network = description.build()
        network.load_state_dict(file.tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise files.TensorFileError(f"{path} holds a model that does not fit its description: {error}", path) from error
    network.to(device, dtype(precision)).to(memory_format=memory_format(torch.device(device), precision))
    network.eval().requires_grad_(False)
    return assemble(description, network, file.digest, device)


def assemble(description: Description, network: nn.Module, digest: str, device: torch.device | str) -> Model:
    """A model of a network that is already on its device."""
    forward = process.from_settings(description.diffusion, device)
    return Model(description, network, Denoiser(network, forward, description.diffusion), digest)


def initialise(network: nn.Module, path: Path) -> str:
    """Load the weights of a model file into the network; return their sha256.

    Raises `TensorFileError` if the file holds no model, or a model with other shapes.
    """
    file = files.read_tensors(path, FORMAT)
    try:
        network.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise files.TensorFileError(f"train.init = {path}: its network has other weights. {error}", path) from None
    return file.digest


def check_compatible(path: Path, description: Description, whole: bool) -> None:
    """Raise `TensorFileError` if the weights of a model file would compute something else in the described model.

    That is the case if settings differ that the shapes of the weights do not show; with `whole`, also if the process or
    the prediction differs.
    """
    theirs, ours = files.read_tensors(path, FORMAT).metadata, {"network": description.network.model_dump()}
    keys = {"network": _NOT_IN_SHAPES & ours["network"].keys()}
    if whole:
        ours["diffusion"] = description.diffusion.model_dump()
        keys["diffusion"] = ours["diffusion"].keys() | theirs["diffusion"].keys()
    differing = [
        f"{section}.{key} = {ours[section].get(key)!r}: must be {theirs[section].get(key)!r}"
        for section in keys
        for key in sorted(keys[section])
        if ours[section].get(key) != theirs[section].get(key)
    ]
    if differing:
        raise files.TensorFileError("\n  ".join([f"train.init = {path} needs other settings:", *differing]), path)
