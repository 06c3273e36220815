"""Weights of the paper's U-Net from files of other projects."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.network.modelfile import Description
from ddpm.params import Diffusion, Network, Section, complaint, model_conflicts

_SHOWN = 5  # the most tensors that an error names
_DIFFUSION = {"process": "gaussian", "value_range": [-1.0, 1.0]}  # settings of every imported model
_NETWORK = {"kind": "unet", "time": True, "conditional": False}


@dataclass(frozen=True)
class Imported:
    """A model of another project, its weights renamed for this one, and its authors' sampling settings."""

    description: Description
    weights: Mapping[str, Tensor]
    sampling: Mapping[str, object]  # keys of params.yaml's section `sample`


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a PyTorch checkpoint that holds only tensors, by name.

    Raises `UsageError`.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        with warnings.catch_warnings(action="ignore"):  # arbitrary bytes can look like an unknown pickle protocol
            # A pickle can run code when it is loaded; weights_only restricts it to tensors and plain containers.
            found = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except Exception as error:  # for bytes that are no pickle, torch raises errors of many kinds with misleading advice
        raise UsageError(f"{path} is not a file of tensors: {_instead(path)}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) and _dense(value) for name, value in found.items()):
        raise UsageError(f"{path} holds more than dense tensors by name; save only the state_dict of the network")
    return found


def _dense(value: object) -> bool:
    """Whether a value is a dense tensor of real numbers with data."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not (value.is_meta or value.is_complex())


def _instead(path: Path) -> str:
    """Why a file cannot be read as tensors, and what to do."""
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "it is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull` in its folder to download the file itself"
    if start.startswith(b"<"):
        return "it is a web page; download the file itself, not the page about it"
    kind = ".safetensors file" if path.suffix == ".safetensors" else "PyTorch checkpoint of tensors"
    return f"it is not a complete {kind}; download it again, or save only the state_dict of the network"


def refuse(what: str, wrong: Iterable[object]) -> None:
    """Raise `UsageError` with a line for each thing that is wrong, if there is any."""
    if lines := list(map(str, wrong)):
        raise UsageError("\n  ".join([f"{what}:", *lines]))


class _Model(Section):
    diffusion: Diffusion
    network: Network


def described(
    path: Path, diffusion: Mapping[str, Any], network: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Description:
    """The description of a model with these keys of params.yaml. Raises `UsageError` if they are invalid."""
    try:
        model = _Model.model_validate({"diffusion": {**_DIFFUSION, **diffusion}, "network": {**_NETWORK, **network}})
        conflicts = list(model_conflicts(model.diffusion, model.network, image_shape[1]))
    except ValidationError as error:
        conflicts = [complaint(dict(e)) for e in error.errors()]
    refuse(f"{path} is not a model of this project", conflicts)
    return Description(model.diffusion, model.network, image_shape, ())


def renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    """Apply each (pattern, replacement) of a table to a name, in turn."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def adopted(
    description: Description, found: Mapping[str, Tensor], theirs: Callable[[str], str], path: Path
) -> dict[str, Tensor]:
    """Float32 weights for the network of a description; `theirs` maps a weight's name here to its name in `found`.

    A matrix is accepted for a convolution of size 1. Raises `UsageError` if a tensor is missing, unexpected, or of
    another shape.
    """
    with torch.device("meta"):
        wanted = description.build().state_dict()
    names = {name: theirs(name) for name in wanted}
    wrong = [f"{name} is missing" for name in names.values() if name not in found]
    wrong += [f"{name} is unexpected" for name in found if name not in set(names.values())]
    wrong += [
        f"{names[name]} is {list(found[names[name]].shape)} instead of {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if names[name] in found and _essential(found[names[name]]) != _essential(tensor)
    ]
    if len(wrong) > _SHOWN:
        wrong = [*wrong[:_SHOWN], f"and {len(wrong) - _SHOWN} more"]
    refuse(f"{path} does not hold the described U-Net", wrong)
    return {name: found[names[name]].float().reshape(tensor.shape) for name, tensor in wanted.items()}


def _essential(tensor: Tensor) -> tuple[int, ...]:
    """A shape without its trailing ones."""
    shape = tuple(tensor.shape)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
