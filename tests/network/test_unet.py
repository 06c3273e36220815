"""The U-Net: parameter counts, layers and initial weights."""

import math
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from ddpm.network.layers import (
    Downsample,
    ResidualBlock,
    SelfAttention,
    TimeEmbedding,
    Upsample,
    conv,
    initialised,
    sinusoids,
)
from ddpm.network.unet import UNet
from ddpm.params import UNetNetwork

Module = TypeVar("Module", bound=nn.Module)


def randomised(module: Module, scale: float = 0.3) -> Module:
    """The module with random values in every parameter, so that every path affects the output."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=scale)
    return module


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("channels", "size", "multipliers", "count"),
    [
        (3, 32, [1, 2, 2, 2], 35_746_307),
        (1, 32, [1, 2, 2, 2], 35_741_697),
        (3, 256, [1, 1, 2, 2, 4, 4], 113_673_219),
    ],
)
def test_paper_networks_have_the_authors_parameter_counts(
    network_settings: UNetNetwork, channels: int, size: int, multipliers: list[int], count: int
) -> None:
    paper = {"channels": 128, "multipliers": multipliers, "blocks": 2, "attention": [16], "heads": 1, "groups": 32}
    with torch.device("meta"):
        network = UNet(network_settings.model_copy(update=paper), channels, size, channels, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("multipliers", [[1], [1, 2], [1, 2, 3]])
def test_output_has_the_shape_of_the_input(network_settings: UNetNetwork, multipliers: list[int], blocks: int) -> None:
    network = UNet(network_settings.model_copy(update={"multipliers": multipliers, "blocks": blocks}), 3, 8, 3, 0)
    assert network(images(2, 3, 8, 8), torch.tensor([0, 5])).shape == (2, 3, 8, 8)


def test_untrained_network_returns_exactly_zero(network_settings: UNetNetwork) -> None:
    assert not UNet(network_settings, 3, 8, 3, 0)(images(2, 3, 8, 8), torch.tensor([0, 5])).any()


def test_output_depends_on_image_and_time(network_settings: UNetNetwork) -> None:
    network = randomised(UNet(network_settings, 3, 8, 3, 0))
    x = images(1, 3, 8, 8).expand(3, -1, -1, -1).clone()
    x[2] += 0.1 * images(3, 8, 8)
    same, later, other = network(x, torch.tensor([4, 5, 4]))
    assert (same - later).abs().max() > 1e-3
    assert (same - other).abs().max() > 1e-3


def test_images_of_a_batch_are_independent(network_settings: UNetNetwork) -> None:
    network = randomised(UNet(network_settings, 3, 8, 3, 0), 0.1)
    x, index = images(3, 3, 8, 8), torch.tensor([0, 7, 3])
    together = network(x, index)
    for i in range(3):
        torch.testing.assert_close(network(x[i : i + 1], index[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-5)


def test_forward_pass_equals_the_papers_sequence_of_layers(network_settings: UNetNetwork) -> None:
    network = randomised(UNet(network_settings.model_copy(update={"blocks": 2}), 3, 8, 3, 0), 0.1)
    part, index, x = network.get_submodule, torch.tensor([1, 7]), images(2, 3, 8, 8)
    embedding = network.time(index)
    skips = [network.first(x)]
    for block in (0, 1):  # at 8 x 8
        skips.append(part(f"down.0.blocks.{block}")(skips[-1], embedding))
    skips.append(part("down.0.downsample")(skips[-1]))
    for block in (0, 1):  # at 4 x 4, with attention
        skips.append(part(f"down.1.attentions.{block}")(part(f"down.1.blocks.{block}")(skips[-1], embedding)))
    h = part("middle.attention")(part("middle.block_1")(skips[-1], embedding))
    h = part("middle.block_2")(h, embedding)
    for block in (0, 1, 2):
        h = part(f"up.0.blocks.{block}")(torch.cat([h, skips.pop()], dim=1), embedding)
        h = part(f"up.0.attentions.{block}")(h)
    h = part("up.0.upsample")(h)
    for block in (0, 1, 2):
        h = part(f"up.1.blocks.{block}")(torch.cat([h, skips.pop()], dim=1), embedding)
    normalised = part("norm")(h)
    expected = part("last")(normalised * normalised.sigmoid())
    assert not skips
    torch.testing.assert_close(network(x, index), expected, rtol=1e-4, atol=1e-6)


def test_attention_is_at_the_configured_sizes_and_in_the_middle(network_settings: UNetNetwork) -> None:
    def count(attention: list[int]) -> int:
        settings = network_settings.model_copy(update={"attention": attention, "blocks": 2})
        return sum(isinstance(module, SelfAttention) for module in UNet(settings, 3, 8, 3, 0).modules())

    assert [count([]), count([4]), count([8]), count([4, 8])] == [1, 6, 6, 11]  # each size: 2 down, 3 up


def test_untrained_residual_block_equals_its_shortcut(network_settings: UNetNetwork) -> None:
    x, embedding = images(2, 8, 4, 6), images(2, 32)
    assert ResidualBlock(8, 8, network_settings)(x, embedding).equal(x)
    wider = ResidualBlock(8, 16, network_settings)
    assert wider(x, embedding).equal(wider.shortcut(x))


def test_residual_block_equals_the_papers_sequence_of_layers(network_settings: UNetNetwork) -> None:
    block = randomised(ResidualBlock(8, 16, network_settings))
    x, embedding = images(2, 8, 4, 6), images(2, 32)

    def swish(h: Tensor) -> Tensor:
        return h / (1 + torch.exp(-h))

    def normalised(h: Tensor, norm: nn.GroupNorm) -> Tensor:
        groups = h.reshape(2, 4, -1)
        unit = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
        return unit.view_as(h) * norm.weight[:, None, None] + norm.bias[:, None, None]

    h = block.conv_1(swish(normalised(x, block.norm_1))) + block.time(swish(embedding))[:, :, None, None]
    expected = block.shortcut(x) + block.conv_2(swish(normalised(h, block.norm_2)))
    torch.testing.assert_close(block(x, embedding), expected, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_only(network_settings: UNetNetwork) -> None:
    block = randomised(ResidualBlock(8, 8, network_settings.model_copy(update={"dropout": 0.5})))
    x, embedding = images(2, 8, 4, 6), images(2, 32)
    assert not block(x, embedding).equal(block(x, embedding))
    block.eval()
    assert block(x, embedding).equal(block(x, embedding))


def test_untrained_attention_is_the_identity(network_settings: UNetNetwork) -> None:
    x = images(2, 8, 4, 6)
    assert SelfAttention(8, network_settings)(x).equal(x)


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_the_softmax_of_scaled_dot_products(network_settings: UNetNetwork, heads: int) -> None:
    attention = randomised(SelfAttention(8, network_settings.model_copy(update={"heads": heads})))
    x = images(2, 8, 4, 6)
    h = attention.norm(x)
    query, key, value = (
        project(h).reshape(2, heads, 8 // heads, 24) for project in (attention.query, attention.key, attention.value)
    )
    weights = torch.einsum("nhcq,nhck->nhqk", query, key).div((8 / heads) ** 0.5).softmax(dim=-1)
    attended = torch.einsum("nhqk,nhck->nhcq", weights, value).reshape(2, 8, 4, 6)
    torch.testing.assert_close(attention(x), x + attention.output(attended), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("pad", "rows", "columns"),
    [("asymmetric", [3, 2], [3, 3, 2]), ("symmetric", [2, 3], [2, 3, 3])],
)
def test_downsampling_pads_the_configured_sides(
    network_settings: UNetNetwork, pad: str, rows: list[int], columns: list[int]
) -> None:
    layer = Downsample(8, network_settings.model_copy(update={"downsample": pad}))
    nn.init.ones_(layer.conv.get_parameter("weight"))
    # A kernel of ones over an image of ones counts the image pixels under it; padding does not count.
    expected = 8 * torch.outer(torch.tensor(rows), torch.tensor(columns)).float()
    torch.testing.assert_close(layer(torch.ones(2, 8, 4, 6)), expected.expand(2, 8, 2, 3))


def test_upsampling_repeats_each_pixel_before_the_convolution() -> None:
    layer = Upsample(3)
    nn.init.dirac_(layer.conv.get_parameter("weight"))
    x = images(2, 3, 4, 6)
    torch.testing.assert_close(layer(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def test_sinusoids_are_sines_then_cosines_of_falling_frequencies() -> None:
    table = sinusoids(torch.tensor([0, 1, 999]), 6)
    assert table.shape == (3, 6)
    for row, t in enumerate([0, 1, 999]):
        angles = [t * math.exp(-math.log(10_000) * i / 2) for i in range(3)]
        expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
        torch.testing.assert_close(table[row], expected, rtol=0, atol=2e-4)


def test_time_embedding_in_bf16_distinguishes_neighbouring_times() -> None:
    # bf16 itself has no 257 or 999: its integers are a multiple of 2 above 256, of 4 above 512.
    layer, index = randomised(TimeEmbedding(8)).bfloat16(), torch.tensor([256, 257, 998, 999])
    embedding = layer(index)
    assert embedding.dtype == torch.bfloat16
    assert len(embedding.unique(dim=0)) == 4
    exact = randomised(TimeEmbedding(8))(index)
    assert (embedding - exact).norm() < 0.02 * exact.norm()


def test_time_embedding_is_two_dense_layers_over_sinusoids() -> None:
    layer = randomised(TimeEmbedding(8))
    index = torch.tensor([0, 3, 19])
    hidden = layer.dense_1(sinusoids(index, 8))
    assert layer(index).shape == (3, 32)
    torch.testing.assert_close(layer(index), layer.dense_2(hidden * hidden.sigmoid()))


def test_initial_weights_are_xavier_uniform_and_initial_biases_zero() -> None:
    layer = conv(40, 60)
    bound = (6 / (9 * (40 + 60))) ** 0.5
    weight = next(layer.parameters()).detach()
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    for dense in (initialised(nn.Linear(5, 7)), layer):
        assert not dict(dense.named_parameters())["bias"].any()


def test_course_network_has_the_courses_parameter_count(network_settings: UNetNetwork) -> None:
    course = {
        "channels": 32,
        "multipliers": [1, 2, 2],
        "blocks": 2,
        "attention": [14, 7],
        "heads": 8,
        "groups": 32,
        "norm_eps": 1e-5,
        "downsample": "symmetric",
        "time": False,
    }
    with torch.device("meta"):
        network = UNet(network_settings.model_copy(update=course), 1, 28, 1, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_707_009


def test_output_of_a_conditional_network_depends_on_the_label(network_settings: UNetNetwork) -> None:
    network = randomised(UNet(network_settings.model_copy(update={"conditional": True}), 3, 8, 3, 5))
    x, index = images(1, 3, 8, 8).expand(3, -1, -1, -1), torch.tensor([4, 4, 4])
    first, other, none = network(x, index, torch.tensor([0, 3, 5]))
    assert (first - other).abs().max() > 1e-3
    assert (first - none).abs().max() > 1e-3
    torch.testing.assert_close(network(x, index)[1], none)  # no labels equal the null label


def test_images_may_share_one_time_index(network_settings: UNetNetwork) -> None:
    for settings in (network_settings, network_settings.model_copy(update={"conditional": True})):
        network, x = randomised(UNet(settings, 3, 8, 3, 5), 0.1), images(3, 3, 8, 8)
        torch.testing.assert_close(network(x, torch.tensor([7])), network(x, torch.full((3,), 7)))
    labels = torch.tensor([0, 4, 5])
    torch.testing.assert_close(network(x, torch.tensor([7]), labels), network(x, torch.full((3,), 7), labels))


def test_forward_without_gradients_changes_neither_its_input_nor_its_output(network_settings: UNetNetwork) -> None:
    network, x, index = randomised(UNet(network_settings, 3, 8, 3, 0), 0.1), images(2, 3, 8, 8), torch.tensor([4, 0])
    before, expected = x.clone(), network(x, index)
    with torch.no_grad():  # SiLU then works in place
        assert network(x, index).equal(expected)
    assert x.equal(before)


def test_label_embedding_is_added_to_the_time_embedding(network_settings: UNetNetwork) -> None:
    network = randomised(UNet(network_settings.model_copy(update={"conditional": True}), 3, 8, 3, 5))
    assert network.label is not None
    x, index, labels = images(2, 3, 8, 8), torch.tensor([4, 0]), torch.tensor([3, 1])
    embeddings: list[Tensor] = []
    network.get_submodule("middle").register_forward_hook(lambda _module, inputs, _output: embeddings.append(inputs[1]))
    network(x, index, labels)
    torch.testing.assert_close(embeddings, [network.time(index) + network.label.weight[labels]])


def test_unconditional_network_has_no_labels(network_settings: UNetNetwork) -> None:
    assert UNet(network_settings, 3, 8, 3, 5).label is None


def test_network_without_time_always_uses_index_zero(network_settings: UNetNetwork) -> None:
    timed = randomised(UNet(network_settings, 3, 8, 3, 0))
    untimed = UNet(network_settings.model_copy(update={"time": False}), 3, 8, 3, 0)
    untimed.load_state_dict(timed.state_dict())
    x = images(2, 3, 8, 8)
    assert untimed(x, torch.tensor([7, 19])).equal(timed(x, torch.tensor([0, 0])))


def test_learned_variance_doubles_the_output_channels(network_settings: UNetNetwork) -> None:
    assert UNet(network_settings, 3, 8, 6, 0)(images(2, 3, 8, 8), torch.tensor([0, 5])).shape == (2, 6, 8, 8)
