"""Conversion between the section `network` of params.yaml and the config of diffusers' `UNet2DModel`."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Annotated, Any, Literal

from pydantic import Field

from ddpm.params import Conflict, Number, Section, Size, UNetNetwork, Width

_PADS = {"asymmetric": 0, "symmetric": 1}  # with 0, diffusers pads the right and the bottom


class UNet2DConfig(Section):
    """The keys of a config. A literal lists the supported values; a default is that of diffusers."""

    sample_size: Size
    in_channels: Size
    out_channels: Size
    block_out_channels: Annotated[list[Size], Field(min_length=1, max_length=13)]
    layers_per_block: Annotated[int, Field(ge=1, le=100)]
    down_block_types: list[Literal["DownBlock2D", "AttnDownBlock2D"]]
    up_block_types: list[Literal["UpBlock2D", "AttnUpBlock2D"]]
    downsample_padding: Literal[0, 1]
    attention_head_dim: Width | None
    flip_sin_to_cos: bool
    freq_shift: Literal[1]  # the paper's frequencies
    norm_num_groups: Width
    norm_eps: Number
    dropout: Number = 0.0
    act_fn: Literal["silu"] = "silu"
    add_attention: Literal[True] = True
    attn_norm_num_groups: None = None
    center_input_sample: Literal[False] = False
    class_embed_type: None = None
    downsample_type: Literal["conv"] = "conv"
    mid_block_scale_factor: Literal[1] = 1
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    num_class_embeds: None = None
    num_train_timesteps: None = None
    resnet_time_scale_shift: Literal["default"] = "default"
    time_embedding_dim: None = None
    time_embedding_type: Literal["positional"] = "positional"
    upsample_type: Literal["conv"] = "conv"


def export_conflicts(network: UNetNetwork, image_size: int) -> Iterator[Conflict]:
    """The settings that `UNet2DModel`, in a `DDPMPipeline`, does not support."""
    if network.conditional:
        yield Conflict("network.conditional", True, "DDPMPipeline passes no labels to the network")
    if network.multipliers[0] != 1:
        rule = "must begin with 1, because diffusers' first convolution is as wide as the first level"
        yield Conflict("network.multipliers", network.multipliers, rule)
    widths = _attention_widths(*_levels(network, image_size))
    if network.heads > 1 and len(widths) > 1:
        rule = f"diffusers' heads have one width, but attention is on {sorted(widths)} channels, including the middle"
        yield Conflict("network.heads", network.heads, rule)


def config(network: UNetNetwork, image_shape: tuple[int, int, int], outputs: int) -> dict[str, Any]:
    """The config of a `UNet2DModel` that computes the same as a network without conflicts."""
    channels, size, _ = image_shape
    widths, attention = _levels(network, size)
    prefixes = ["Attn" * has for has in attention]
    defaults = {key: field.default for key, field in UNet2DConfig.model_fields.items() if not field.is_required()}
    return defaults | {
        "_class_name": "UNet2DModel",
        "sample_size": size,
        "in_channels": channels,
        "out_channels": outputs,
        "block_out_channels": widths,
        "layers_per_block": network.blocks,
        "down_block_types": [f"{prefix}DownBlock2D" for prefix in prefixes],
        "up_block_types": [f"{prefix}UpBlock2D" for prefix in reversed(prefixes)],
        "downsample_padding": _PADS[network.downsample],
        # null means one head
        "attention_head_dim": None if network.heads == 1 else widths[-1] // network.heads,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_num_groups": network.groups,
        "norm_eps": network.norm_eps,
        "dropout": network.dropout,
    }


def import_conflicts(config: UNet2DConfig, learned: bool) -> Iterator[Conflict]:
    """The settings of a config that params.yaml cannot express; `learned`: the scheduler needs a variance."""
    widths, outputs = config.block_out_channels, config.in_channels * (1 + learned)
    if config.out_channels != outputs:
        yield Conflict("out_channels", config.out_channels, f"must be {outputs} for the scheduler's variance_type")
    if any(width % widths[0] for width in widths):
        yield Conflict("block_out_channels", widths, "must be multiples of the first")
    down, up = _attention(config.down_block_types), _attention(config.up_block_types)
    if down != up[::-1] or len(down) != len(widths):
        rule = "must mirror down_block_types, one for each of block_out_channels"
        yield Conflict("up_block_types", config.up_block_types, rule)
    elif len(heads := _heads(config)) > 1 or heads.pop() % 1:
        rule = "must divide the channels of every attention, including the middle, into one number of heads"
        yield Conflict("attention_head_dim", config.attention_head_dim, rule)


def section(config: UNet2DConfig) -> dict[str, Any]:
    """The keys of the section `network` that a config without conflicts determines."""
    widths, attention = config.block_out_channels, _attention(config.down_block_types)
    sizes = [config.sample_size // 2**level for level in range(len(widths))]
    return {
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": config.layers_per_block,
        "attention": list(compress(sizes, attention)),
        "heads": int(_heads(config).pop()),
        "groups": config.norm_num_groups,
        "norm_eps": config.norm_eps,
        "dropout": config.dropout,
        "downsample": next(name for name, pad in _PADS.items() if pad == config.downsample_padding),
    }


def _levels(network: UNetNetwork, image_size: int) -> tuple[list[int], list[bool]]:
    """The channels of each level, and whether it has attention."""
    widths = [network.channels * multiplier for multiplier in network.multipliers]
    return widths, [image_size // 2**level in network.attention for level in range(len(widths))]


def _attention(block_types: Sequence[str]) -> list[bool]:
    return [block_type.startswith("Attn") for block_type in block_types]


def _attention_widths(widths: Sequence[int], attention: Sequence[bool]) -> set[int]:
    """The channels of the feature maps with attention; the middle has it too."""
    return {*compress(widths, attention), widths[-1]}


def _heads(config: UNet2DConfig) -> set[float]:
    """The numbers of heads that attention_head_dim gives; null means one head."""
    widths = _attention_widths(config.block_out_channels, _attention(config.down_block_types))
    return {width / (config.attention_head_dim or width) for width in widths}
