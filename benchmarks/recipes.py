"""The settings of the networks that are measured: recipes of this repository."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ddpm import params, rng
from ddpm.data.dataset import Dataset
from ddpm.network.modelfile import Description
from ddpm.params import Params, UNetNetwork

ROOT = Path(__file__).parent.parent
_IMAGES = 1024  # synthetic ones: the speed of a step depends on their size and not on their contents
_SCALE = 0.02  # of random numbers added to all weights


@dataclass(frozen=True)
class Size:
    """A network to measure: its recipe, and the images in a batch."""

    recipe: str
    batch_on_cpu: int
    batch_on_gpu: int
    lucidrains: Mapping[str, Any]  # arguments for denoising-diffusion-pytorch's Unet of about as many parameters

    def batch(self, device: torch.device) -> int:
        """The images in a batch on a device."""
        return self.batch_on_gpu if device.type == "cuda" else self.batch_on_cpu


SIZES = {
    "digits": Size("default", 64, 64, {"dim": 28, "dim_mults": (1, 2), "channels": 1}),  # 0.65M
    "cifar10": Size("ho2020-cifar10", 16, 128, {"dim": 64, "dim_mults": (1, 2, 4, 8), "channels": 3}),  # 35.7M
}


def settings(recipe: str, changes: Mapping[str, Any]) -> Params:
    """The settings of a recipe with some keys, dotted, changed. It needs PyYAML alone, unlike `ddpm recipe`."""
    values = yaml.safe_load((ROOT / "recipes/default.yaml").read_text(encoding="utf-8"))
    if recipe != "default":
        own = yaml.safe_load((ROOT / f"recipes/{recipe}.yaml").read_text(encoding="utf-8"))
        _merge(values, own or {})
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return params.check(values, f"recipe {recipe}")


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def description(chosen: Params, classes: int = 10) -> Description:
    """The model of a recipe, with classes that have numbers as names."""
    shape = (chosen.data.channels, chosen.data.image_size, chosen.data.image_size)
    return Description(chosen.diffusion, chosen.network, shape, [str(number) for number in range(classes)])


def network(of: Description) -> nn.Module:
    """A network with weights that are the same in every process and nowhere zero.

    New networks have layers of zeros, whose products a processor may compute faster than others.
    """
    assert isinstance(of.network, UNetNetwork)
    torch.manual_seed(rng.torch_seed(0, "weights"))
    made = of.build()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(torch.randn(weights.shape), alpha=_SCALE)
    return made


def dataset(of: Description) -> Dataset:
    """Random images of the model's size, with labels."""
    generator = rng.torch_generator(torch.device("cpu"), 0, "images")
    images = torch.randint(256, (_IMAGES, *of.image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.arange(_IMAGES) % len(of.classes)
    return Dataset(images, labels, of.classes, "0" * 64, {"name": "random"})
