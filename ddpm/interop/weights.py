"""The weights of the paper's U-Net under the names that other code gives them."""

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
from ddpm.interop.refusals import refusal, refuse
from ddpm.network.modelfile import Description
from ddpm.params import Diffusion, Network, Section, complaint, model_conflicts

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
        with warnings.catch_warnings(action="ignore"):  # about the pickle protocol that chance bytes seem to name
            # A pickle can run code when it is opened; with weights_only it can make tensors and plain containers alone.
            found = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except Exception as error:  # bytes that are no pickle end in errors of any kind, with advice that does not apply
        raise UsageError(f"{path} is not a file of tensors: {_instead(path)}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) and _dense(value) for name, value in found.items()):
        raise UsageError(f"{path} holds other things than dense tensors by name; save the network's state_dict alone")
    return found


def _dense(value: object) -> bool:
    """Whether it is a tensor of real numbers, all of them there."""
    if not isinstance(value, Tensor):
        return False
    return value.layout is torch.strided and not value.is_meta and not value.is_complex()


def _instead(path: Path) -> str:
    """What a file is that cannot be read as tensors, and what to do."""
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "it is empty; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is Git LFS's pointer to one; `git lfs pull` in its folder downloads the file itself"
    if start.startswith(b"<"):
        return "it is a web page; download the file itself, not the page that shows it"
    kind = ".safetensors file" if path.suffix == ".safetensors" else "PyTorch checkpoint of tensors alone"
    return f"it is no whole {kind}; download it again, or save the network's state_dict alone"


class _Model(Section):
    diffusion: Diffusion
    network: Network


def described(
    path: Path, diffusion: Mapping[str, Any], network: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Description:
    """A description of these sections of params.yaml. Raises `UsageError` where they are not usable."""
    what = f"{path} is of no model of ours"
    try:
        model = _Model.model_validate({"diffusion": dict(diffusion), "network": dict(network)})
    except ValidationError as error:
        raise refusal(what, (complaint(dict(e)) for e in error.errors())) from None
    refuse(what, model_conflicts(model.diffusion, model.network, image_shape[1]))
    return Description(model.diffusion, model.network, image_shape, ())


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
