"""The weights of the paper's U-Net under the names that other code gives them."""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.interop.refusals import refuse
from ddpm.network.modelfile import Description
from ddpm.params import Diffusion, Network, model_conflicts

_SHOWN = 5  # of the tensors that are wrong


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere, under the names of ours, and how its authors sample it."""

    description: Description
    weights: Mapping[str, Tensor]
    sampling: Mapping[str, object]  # keys of params.yaml's section `sample`


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch checkpoint that holds nothing but tensors, by name.

    Raises `UsageError`.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        # A pickle can run code when it is opened; with weights_only it can make tensors and plain containers alone.
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (safetensors.SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise UsageError(f"{path} is not readable as tensors: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise UsageError(f"{path} holds other things than tensors by name; save the network's state_dict alone")
    return found


def described(
    path: Path, diffusion: Mapping[str, Any], network: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Description:
    """A description of these sections of params.yaml. Raises `UsageError` where they are not usable."""
    try:
        description = Description(
            TypeAdapter[Diffusion](Diffusion).validate_python(dict(diffusion)),
            TypeAdapter[Network](Network).validate_python(dict(network)),
            image_shape,
            (),
        )
    except ValidationError as error:
        raise UsageError(f"{path} is of no model of ours: {error}") from None
    refuse(
        f"{path} is of no model of ours", model_conflicts(description.diffusion, description.network, image_shape[1])
    )
    return description


def renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    """A name after each (pattern, replacement) of a table, in turn."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def adopted(
    description: Description, found: Mapping[str, Tensor], theirs: Callable[[str], str], path: Path
) -> dict[str, Tensor]:
    """Float32 weights for the network of a description, each from the tensor that `theirs` calls its name by.

    A convolution of size 1 may come as a matrix. Raises `UsageError` where a tensor is missing, left over, or of
    another shape.
    """
    with torch.device("meta"):
        wanted = description.build().state_dict()
    names = {name: theirs(name) for name in wanted}
    wrong = [f"{name} is missing" for name in names.values() if name not in found]
    wrong += [f"{name} has no place in it" for name in found if name not in set(names.values())]
    wrong += [
        f"{names[name]} is {list(found[names[name]].shape)} instead of {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if names[name] in found and _essential(found[names[name]]) != _essential(tensor)
    ]
    if len(wrong) > _SHOWN:
        wrong = [*wrong[:_SHOWN], f"and {len(wrong) - _SHOWN} more"]
    refuse(f"{path} does not hold the U-Net that is described", wrong)
    return {name: found[names[name]].float().reshape(tensor.shape) for name, tensor in wanted.items()}


def _essential(tensor: Tensor) -> tuple[int, ...]:
    """A shape without the ones that it ends with."""
    shape = tuple(tensor.shape)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
