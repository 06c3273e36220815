"""The paper's checkpoints, with the layer names of their port to PyTorch."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddpm.errors import UsageError
from ddpm.interop import official, weights
from ddpm.network.modelfile import Description
from ddpm.params import Gaussian, UNetNetwork


@pytest.fixture
def description() -> Description:
    """The paper's settings, on fewer channels and levels."""
    diffusion = Gaussian(
        process="gaussian",
        timesteps=1000,
        schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction="eps",
        variance="fixed",
        value_range=[-1.0, 1.0],
    )
    network = UNetNetwork(
        kind="unet",
        channels=32,
        multipliers=[1, 3, 2],
        blocks=2,
        attention=[16],
        heads=1,
        groups=32,
        norm_eps=1e-6,
        dropout=0.0,
        time=True,
        downsample="asymmetric",
        conditional=False,
    )
    return Description(diffusion, network, (3, 64, 64), ())


def state_of(description: Description) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(weight.shape) for name, weight in description.build().state_dict().items()}


def pairs(levels: int) -> dict[str, str]:
    """Map the name of each layer here to its name in the port; the last level has attention."""
    table = {"time.dense_1": "temb.dense.0", "time.dense_2": "temb.dense.1"}
    table |= {"first": "conv_in", "norm": "norm_out", "last": "conv_out"}
    blocks = {"middle.block_1": "mid.block_1", "middle.block_2": "mid.block_2"}
    attentions = {"middle.attention": "mid.attn_1"}
    for level in range(levels):
        for way, count, index in (("down", 2, level), ("up", 3, levels - 1 - level)):
            for number in range(count):
                blocks[f"{way}.{index}.blocks.{number}"] = f"{way}.{level}.block.{number}"
                if level == levels - 1:
                    attentions[f"{way}.{index}.attentions.{number}"] = f"{way}.{level}.attn.{number}"
        table[f"down.{level}.downsample.conv"] = f"down.{level}.downsample.conv"
        table[f"up.{levels - 1 - level}.upsample.conv"] = f"up.{level}.upsample.conv"
    inside = {"norm_1": "norm1", "conv_1": "conv1", "time": "temb_proj", "norm_2": "norm2", "conv_2": "conv2"}
    for ours, theirs in blocks.items():
        table |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in inside.items()}
        table[f"{ours}.shortcut"] = f"{theirs}.nin_shortcut"
    letters = {"norm": "norm", "query": "q", "key": "k", "value": "v", "output": "proj_out"}
    for ours, theirs in attentions.items():
        table |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in letters.items()}
    return table


def ported(state: dict[str, Tensor], levels: int = 3) -> dict[str, Tensor]:
    table = pairs(levels)
    layers = {name: name.rpartition(".") for name in state}
    return {f"{table[layer]}.{kind}": state[name] for name, (layer, _, kind) in layers.items()}


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_checkpoint_of_the_paper_is_read_completely(description: Description, tmp_path: Path, suffix: str) -> None:
    state, path = state_of(description), tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(ported(state), path)
    imported = official.read(path)
    assert imported.description == description
    torch.testing.assert_close(dict(imported.weights), state, rtol=0, atol=0)
    assert imported.sampling == {"sigma": "small", "clip": True}


@pytest.mark.parametrize(("variance", "sigma"), [("fixed", "large"), ("learned", None)])
def test_image_size_and_learned_variance_follow_from_the_shapes(
    description: Description, tmp_path: Path, variance: str, sigma: str | None
) -> None:
    small = Description(
        description.diffusion.model_copy(update={"variance": variance}),
        description.network.model_copy(update={"multipliers": [1, 2]}),
        (1, 32, 32),
        (),
    )
    torch.save(ported(state_of(small), 2), tmp_path / "model.ckpt")
    imported = official.read(tmp_path / "model.ckpt")
    assert imported.description == small
    assert imported.sampling["sigma"] == sigma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down.1.block.0.conv2.bias": None}, r"down\.1\.block\.0\.conv2\.bias is missing"),
        ({"down.1.block.0.conv1.weight": None}, r"down\.1\.block\.0\.conv1\.weight is missing"),
        ({"ema_step": torch.zeros(1)}, "ema_step is unexpected"),
        ({"conv_in.bias": torch.zeros(5)}, r"conv_in\.bias is \[5\] instead of \[32\]"),
        ({"down.0.attn.0.norm.weight": torch.zeros(32)}, "has attention at 2 sizes"),
        ({"down.1.block.0.conv1.weight": torch.zeros(40, 32, 3, 3)}, r"the widths of its levels are \[32, 40, 64\]"),
        ({"temb.dense.0.weight": None}, "does not have the names of the paper's U-Net, such as temb"),
        ({"step": 3}, "holds more than dense tensors by name"),
        ({3: torch.zeros(1)}, "holds more than dense tensors by name"),
        ({"conv_in.weight": torch.ones(2).to_sparse()}, "holds more than dense tensors by name"),
        ({"conv_in.bias": torch.ones(2, device="meta")}, "holds more than dense tensors by name"),
        ({"conv_in.weight": torch.ones(2) * 1j}, "holds more than dense tensors by name"),
        (
            {"down.1.block.0.conv1.weight": torch.tensor(1.0)},
            r"conv1\.weight has the shape \[\]: must be that of a convolution",
        ),
        (
            {"conv_in.weight": torch.zeros(0, 3, 3, 3)},
            r"conv_in\.weight has the shape \[0, 3, 3, 3\]: must be that of a convolution",
        ),
        ({"conv_out.weight": torch.zeros(3)}, r"conv_out\.weight has the shape \[3\]: must be that of a convolution"),
        ({"down.0.block.999999999.norm1.bias": torch.zeros(1)}, r"down\.0\.block\.2\.norm1\.weight is missing"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_error_names_the_difference_from_the_papers_network(
    description: Description, tmp_path: Path, change: dict[object, object], message: str
) -> None:
    tensors: dict[object, object] = {**ported(state_of(description)), **change}
    torch.save({name: value for name, value in tensors.items() if value is not None}, tmp_path / "model.ckpt")
    with pytest.raises(UsageError, match=rf"(?s)model\.ckpt.*{message}"):
        official.read(tmp_path / "model.ckpt")


WHOLE = "it is not a complete {}; download it again, or save only the state_dict of the network"
PICKLE, SAFE = WHOLE.format("PyTorch checkpoint of tensors"), WHOLE.format(".safetensors file")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 143117772\n"


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; download it again"),
        (LFS, "it is a Git LFS pointer; run `git lfs pull` in its folder to download the file itself"),
        (b"\n<!DOCTYPE html>\n<html>", "it is a web page; download the file itself, not the page about it"),
        (b"hello", None),
        (b"\x80\x04of another protocol", None),
        (bytes(range(256)), None),
    ],
    ids=["empty", "pointer", "page", "text", "protocol", "bytes"],
)
def test_error_of_a_file_without_tensors_is_one_line_with_advice(
    tmp_path: Path, suffix: str, content: bytes, reason: str | None
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        weights.read(path)
    assert str(caught.value) == (
        f"{path} is not a file of tensors: {reason or (SAFE if suffix == '.safetensors' else PICKLE)}"
    )


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_error_names_a_truncated_file(description: Description, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(ported(state_of(description)), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match=r"is not a file of tensors: it is not a complete .*; download it again"):
        official.read(path)


class Unwanted:
    """A class whose pickle an unrestricted load would execute."""


def test_file_with_a_pickled_class_is_refused(tmp_path: Path) -> None:
    torch.save({"temb.dense.0.weight": Unwanted()}, tmp_path / "code.pt")
    with pytest.raises(UsageError) as caught:
        official.read(tmp_path / "code.pt")
    assert str(caught.value) == f"{tmp_path}/code.pt is not a file of tensors: {PICKLE}"


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.pt does not exist"):
        official.read(tmp_path / "absent.pt")
