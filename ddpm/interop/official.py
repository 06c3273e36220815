"""The paper's own checkpoints, in the layout of their port to PyTorch (pesser/pytorch_diffusion)."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from ddpm.errors import UsageError
from ddpm.interop import weights
from ddpm.interop.weights import Imported

_NAMES = (  # ours to theirs
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
    (r"\.query\.", ".q."),
    (r"\.key\.", ".k."),
    (r"\.value\.", ".v."),
    (r"\.output\.", ".proj_out."),
)
_ATTENTION = 16  # the feature-map size that has it, in every model of the paper


def read(path: Path) -> Imported:
    """A model from a file of the paper's U-Net, .ckpt, .pt or .safetensors.

    The names and shapes tell the architecture, and the image size because attention stands at 16 x 16. What they
    cannot tell is the paper's: 32 groups, one head, eps predicted in 1000 linear steps. Dropout is 0.
    Raises `UsageError`.
    """
    found = weights.read(path)
    if "temb.dense.0.weight" not in found:
        raise UsageError(
            f"{path} has not the names of the paper's U-Net, such as temb.dense.0.weight; for a model of diffusers "
            f"name its folder"
        )
    first, last = _shape(path, found, "conv_in.weight"), _shape(path, found, "conv_out.weight")
    levels = _count(found, r"down\.(\d+)\.")
    widths = [_shape(path, found, f"down.{level}.block.0.conv1.weight")[0] for level in range(levels)]
    attentive = [level for level in range(levels) if f"down.{level}.attn.0.norm.weight" in found]
    if len(attentive) != 1:
        raise UsageError(f"{path}: attention at one size tells the image's, and it has it at {len(attentive)}")
    if any(width % first[0] for width in widths):
        raise UsageError(f"{path}: its levels are {widths} wide, which are not all multiples of the first, {first[0]}")
    diffusion = {
        "process": "gaussian",
        "timesteps": 1000,
        "schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction": "eps",
        "variance": "fixed" if last[0] == first[1] else "learned",
        "value_range": [-1.0, 1.0],
    }
    network = {
        "kind": "unet",
        "channels": first[0],
        "multipliers": [width // first[0] for width in widths],
        "blocks": _count(found, r"down\.0\.block\.(\d+)\."),
        "attention": [_ATTENTION],
        "heads": 1,
        "groups": 32,
        "norm_eps": 1e-6,
        "dropout": 0.0,
        "time": True,
        "downsample": "asymmetric",
        "conditional": False,
    }
    size = _ATTENTION * 2 ** attentive[0]
    description = weights.described(path, diffusion, network, (first[1], size, size))
    # CIFAR-10 is sampled with the large variance, the images of 256 x 256 with the small one.
    sigma = {"sigma": "large" if size == 32 else "small"} if diffusion["variance"] == "fixed" else {"sigma": None}
    sampling = sigma | {"clip": True}
    return Imported(description, weights.adopted(description, found, partial(_theirs, levels), path), sampling)


def _theirs(levels: int, name: str) -> str:
    """Their name of a weight of ours: they count the levels of the way up as those of the way down."""
    name = re.sub(r"^up\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)
    return weights.renamed(name, _NAMES)


def _count(found: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in found if (match := re.match(pattern, name))})


def _shape(path: Path, found: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The (outputs, inputs, height, width) of a convolution. Raises `UsageError` where there is none."""
    if name not in found:
        raise UsageError(f"{path} does not hold the whole U-Net: {name} is missing")
    shape = tuple(found[name].shape)
    if len(shape) != 4 or 0 in shape:
        raise UsageError(f"{path}: {name} is {list(shape)}: must be a convolution's, of four sizes above 0")
    return shape
