"""The section `network` of params.yaml as the config of diffusers' `UNet2DModel`, and back."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from ddpm.interop.refusals import Config, others, unreadable
from ddpm.params import Conflict, Count, Number, UNetNetwork

_ONLY: dict[str, Any] = {  # not ours to choose; diffusers' own value where a config says nothing
    "act_fn": "silu",
    "add_attention": True,
    "attn_norm_num_groups": None,
    "center_input_sample": False,
    "class_embed_type": None,
    "downsample_type": "conv",
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2D",
    "num_class_embeds": None,
    "num_train_timesteps": None,
    "resnet_time_scale_shift": "default",
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "upsample_type": "conv",
}
_PADS = {"asymmetric": 0, "symmetric": 1}  # 0: a pad on the right and the bottom, by hand

# The network is built before its weights are compared: no slip of a digit in its config may fill the memory.
_Size = Annotated[int, Field(ge=1, le=4096)]
_Blocks = Annotated[int, Field(ge=1, le=100)]


class UNet2DConfig(Config):
    """What is read of a `UNet2DModel`'s config; the first ones had all of it but dropout."""

    sample_size: _Size
    in_channels: _Size
    out_channels: _Size
    block_out_channels: Annotated[list[_Size], Field(min_length=1)]
    layers_per_block: _Blocks
    down_block_types: list[str]
    up_block_types: list[str]
    downsample_padding: int
    attention_head_dim: Count | None
    flip_sin_to_cos: bool
    freq_shift: int
    norm_num_groups: Count
    norm_eps: Number
    dropout: Number = 0.0


def obstacles(network: UNetNetwork, image_size: int) -> Iterator[Conflict]:
    """The settings that `UNet2DModel`, in a `DDPMPipeline`, does not support."""
    if network.conditional:
        yield Conflict("network.conditional", True, "DDPMPipeline passes no labels to the network")
    if network.multipliers[0] != 1:
        rule = "must begin with 1, for diffusers' first convolution is as wide as the first level"
        yield Conflict("network.multipliers", network.multipliers, rule)
    widths = _attention_widths(network, image_size)
    if network.heads > 1 and len(widths) > 1:
        rule = f"diffusers' heads have one width, and this attention is on {sorted(widths)} channels, with the middle's"
        yield Conflict("network.heads", network.heads, rule)


def _attention_widths(network: UNetNetwork, image_size: int) -> set[int]:
    """The channels of the feature maps with attention; the middle has it too."""
    levels = [m for level, m in enumerate(network.multipliers) if image_size // 2**level in network.attention]
    return {network.channels * multiplier for multiplier in [*levels, network.multipliers[-1]]}


def config(network: UNetNetwork, image_shape: tuple[int, int, int], outputs: int) -> dict[str, Any]:
    """Of a `UNet2DModel` that computes the same, if there are no obstacles."""
    channels, size, _ = image_shape
    attention = ["Attn" * (size // 2**level in network.attention) for level in range(len(network.multipliers))]
    return _ONLY | {
        "_class_name": "UNet2DModel",
        "sample_size": size,
        "in_channels": channels,
        "out_channels": outputs,
        "block_out_channels": [network.channels * multiplier for multiplier in network.multipliers],
        "layers_per_block": network.blocks,
        "down_block_types": [f"{prefix}DownBlock2D" for prefix in attention],
        "up_block_types": [f"{prefix}UpBlock2D" for prefix in reversed(attention)],
        "downsample_padding": _PADS[network.downsample],
        # null is one head, however many channels
        "attention_head_dim": None if network.heads == 1 else max(_attention_widths(network, size)) // network.heads,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_num_groups": network.groups,
        "norm_eps": network.norm_eps,
        "dropout": network.dropout,
    }


def complaints(config: Mapping[str, Any], learned: bool) -> Iterator[Conflict]:
    """The keys of a config that params.yaml cannot express; `learned`: the scheduler needs a variance."""
    yield from others(config, _ONLY)
    known = {*UNet2DConfig.model_fields, *_ONLY}
    unknown = (key for key in config if key not in known and not key.startswith("_"))
    yield from (Conflict(key, config[key], "is unknown") for key in unknown)
    wrong = list(unreadable(config, UNet2DConfig))
    yield from wrong or _wiring_complaints(UNet2DConfig.model_validate(config), learned)


def _wiring_complaints(config: UNet2DConfig, learned: bool) -> Iterator[Conflict]:
    widths, outputs = config.block_out_channels, config.in_channels * (1 + learned)
    if config.out_channels != outputs:
        yield Conflict("out_channels", config.out_channels, f"must be {outputs} for the scheduler's variance_type")
    if config.freq_shift != 1:
        yield Conflict("freq_shift", config.freq_shift, "must be 1, for the paper's frequencies")
    if config.downsample_padding not in _PADS.values():
        yield Conflict("downsample_padding", config.downsample_padding, "must be 0 or 1")
    if any(width % widths[0] for width in widths):
        yield Conflict("block_out_channels", widths, "must be multiples of the first")
    unknown = list(_block_complaints(config))
    yield from unknown or _attention_complaints(config)


def _block_complaints(config: UNet2DConfig) -> Iterator[Conflict]:
    for way in ("Down", "Up"):
        key, known = f"{way.lower()}_block_types", (f"{way}Block2D", f"Attn{way}Block2D")
        for kind in getattr(config, key):
            if kind not in known:
                yield Conflict(key, kind, f"must be {' or '.join(known)}")


def _attention_complaints(config: UNet2DConfig) -> Iterator[Conflict]:
    down, up = (
        [kind.startswith("Attn") for kind in kinds] for kinds in (config.down_block_types, config.up_block_types)
    )
    if down != up[::-1] or len(down) != len(config.block_out_channels):
        rule = "must mirror down_block_types, one for each of block_out_channels"
        yield Conflict("up_block_types", config.up_block_types, rule)
    elif len(heads := _heads(config)) > 1 or heads.pop() % 1:
        rule = "must divide the channels of every attention, with the middle's, into one number of heads"
        yield Conflict("attention_head_dim", config.attention_head_dim, rule)


def _heads(config: UNet2DConfig) -> set[float]:
    """What the widths of feature maps with attention are of a head's; null is as wide as the map."""
    widths = config.block_out_channels
    attending = [width for width, kind in zip(widths, config.down_block_types, strict=True) if kind.startswith("Attn")]
    return {width / (config.attention_head_dim or width) for width in [*attending, widths[-1]]}


def section(config: UNet2DConfig) -> dict[str, Any]:
    """The section `network` of a config without complaints."""
    widths, kinds = config.block_out_channels, config.down_block_types
    return {
        "kind": "unet",
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": config.layers_per_block,
        "attention": [config.sample_size // 2**level for level, kind in enumerate(kinds) if kind.startswith("Attn")],
        "heads": int(_heads(config).pop()),
        "groups": config.norm_num_groups,
        "norm_eps": config.norm_eps,
        "dropout": config.dropout,
        "time": True,
        "downsample": next(name for name, pad in _PADS.items() if pad == config.downsample_padding),
        "conditional": False,
    }
