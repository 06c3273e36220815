"""The paper's own checkpoints, in the layout of their port to PyTorch (pesser/pytorch_diffusion)."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm.errors import UsageError
from ddpm.interop import weights
from ddpm.interop.weights import Imported

_NAMES = (  # name here, name in the checkpoint
    (r"^time\.dense_1\.", "temb.dense.0."),
    (r"^time\.dense_2\.", "temb.dense.1."),
    (r"^first\.", "conv_in."),
    (r"^norm\.", "norm_out."),
    (r"^last\.", "conv_out."),
    (r"^middle\.attention\.", "mid.attn_1."),
    (r"^middle\.", "mid."),
    (r"\.blocks\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.(norm|conv)_([12])\.", r".\1\2."),
    (r"\.time\.", ".temb_proj."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.([qkv])(uery|ey|alue)\.", r".\1."),
    (r"\.output\.", ".proj_out."),
)
_ATTENTION = 16  # feature-map size with attention, in every model of the paper
_DIFFUSION = {
    "timesteps": 1000,
    "schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction": "eps",
}


def read(path: Path) -> Imported:
    """Read a model from a file of the paper's U-Net: .ckpt, .pt or .safetensors.

    Names and shapes determine the architecture, and the image size follows from attention at 16 x 16. Everything else
    is the paper's: 32 groups, one head, eps predicted in 1000 linear steps. Dropout is 0. Raises `UsageError`.
    """
    found = weights.read(path)
    if "temb.dense.0.weight" not in found:
        raise UsageError(
            f"{path} does not have the names of the paper's U-Net, such as temb.dense.0.weight; for a model of "
            f"diffusers, pass its folder"
        )
    (outputs, *_), (_, channels, *_) = _shape(path, found, "conv_out.weight"), _shape(path, found, "conv_in.weight")
    levels = _count(found, r"down\.(\d+)\.")
    network = _network(path, found, levels)
    size = _ATTENTION * 2 ** _attention_level(path, found, levels)
    variance = "fixed" if outputs == channels else "learned"
    description = weights.described(path, _DIFFUSION | {"variance": variance}, network, (channels, size, size))
    # The paper samples CIFAR-10 with the large variance and images of 256 x 256 with the small one.
    fixed = "large" if size == 32 else "small"
    sampling = {"sigma": fixed if variance == "fixed" else None, "clip": True}
    return Imported(description, weights.adopted(description, found, partial(_theirs, levels), path), sampling)


def _network(path: Path, found: Mapping[str, Tensor], levels: int) -> dict[str, Any]:
    """The keys of the section `network` that the checkpoint or the paper determines."""
    first, *_ = _shape(path, found, "conv_in.weight")
    widths = [_shape(path, found, f"down.{level}.block.0.conv1.weight")[0] for level in range(levels)]
    if any(width % first for width in widths):
        raise UsageError(
            f"{path}: the widths of its levels are {widths}: must be multiples of the first layer's {first}"
        )
    return {
        "channels": first,
        "multipliers": [width // first for width in widths],
        "blocks": _count(found, r"down\.0\.block\.(\d+)\."),
        "attention": [_ATTENTION],
        "heads": 1,
        "groups": 32,
        "norm_eps": 1e-6,
        "dropout": 0.0,
        "downsample": "asymmetric",
    }


def _attention_level(path: Path, found: Mapping[str, Tensor], levels: int) -> int:
    attentive = [level for level in range(levels) if f"down.{level}.attn.0.norm.weight" in found]
    if len(attentive) != 1:
        raise UsageError(
            f"{path} has attention at {len(attentive)} sizes: must be one, because the image size follows from it"
        )
    return attentive[0]


def _theirs(levels: int, name: str) -> str:
    """The checkpoint's name of a weight. The checkpoint numbers up levels in the order of down levels."""
    name = re.sub(r"^up\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)
    return weights.renamed(name, _NAMES)


def _count(found: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in found if (match := re.match(pattern, name))})


def _shape(path: Path, found: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The (outputs, inputs, height, width) of a convolution. Raises `UsageError` if there is none."""
    if name not in found:
        raise UsageError(f"{path} is incomplete: {name} is missing")
    shape = tuple(found[name].shape)
    if len(shape) != 4 or 0 in shape:
        raise UsageError(
            f"{path}: {name} has the shape {list(shape)}: must be that of a convolution, four sizes above 0"
        )
    return shape
