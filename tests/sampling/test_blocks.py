"""Samples in blocks of 16 with their own seeds do not depend on the batch size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ddpm import images, rng
from ddpm.network import modelfile
from ddpm.network.modelfile import Description, Model
from ddpm.params import BasicNetwork, Conflict, ConflictError, Gaussian, Interpolation, Sample, UNetNetwork
from ddpm.processes import Group
from ddpm.sampling import blocks
from ddpm.sampling.blocks import BlockNoise
from ddpm.sampling.guidance import guide
from tests.sampling.chains import ancestral

CPU = torch.device("cpu")
SHAPE = (3, 8, 4)
DDIM = {"sampler": "ddim", "sigma": None, "eta": 0.5}
DPM_SOLVER = {"sampler": "dpm_solver", "sigma": None}
each_sampler = pytest.mark.parametrize("changes", [{}, DDIM, DPM_SOLVER], ids=["ancestral", "ddim", "dpm_solver"])


@pytest.fixture
def model(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Model:
    """An untrained model whose every weight is random."""
    torch.manual_seed(0)
    description = Description(diffusion_settings, network_settings, (3, 8, 8), [])
    network = description.build().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return modelfile.assemble(description, network, "", CPU)


@pytest.fixture
def conditional(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Model:
    """The same, conditional on three classes."""
    torch.manual_seed(0)
    settings = network_settings.model_copy(update={"conditional": True})
    description = Description(diffusion_settings, settings, (3, 8, 8), ["a", "b", "c"])
    network = description.build().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return modelfile.assemble(description, network, "", CPU)


def test_batches_are_whole_blocks_that_cover_all_images_in_order() -> None:
    assert blocks.batches(40, 16) == [(0, 16), (16, 16), (32, 8)]
    assert blocks.batches(40, 33) == [(0, 32), (32, 8)]
    assert blocks.batches(48, 32) == [(0, 32), (32, 16)]
    assert blocks.batches(40, 250) == [(0, 40)]
    assert blocks.batches(5, 1) == [(0, 5)]
    assert blocks.batches(20, 1) == [(0, 16), (16, 4)]


def test_noise_of_block_j_comes_from_its_own_seed() -> None:
    noise = BlockNoise(7, 16, 32, SHAPE, CPU)
    generators = [rng.torch_generator(CPU, 7, "sample", block) for block in (1, 2)]
    for _ in range(3):
        expected = torch.cat([torch.randn(16, *SHAPE, generator=generator) for generator in generators])
        assert noise().equal(expected)


def test_noise_does_not_depend_on_how_many_images_are_drawn() -> None:
    many, few = BlockNoise(7, 0, 40, SHAPE, CPU), BlockNoise(7, 32, 3, SHAPE, CPU)
    for _ in range(3):
        assert many()[32:35].equal(few())


def test_noise_is_standard_normal_and_new_at_every_draw_and_block() -> None:
    noise = BlockNoise(7, 0, 512, SHAPE, CPU)
    first, second = noise(), noise()
    assert first.shape == (512, *SHAPE)
    assert first.mean().item() == pytest.approx(0, abs=0.03)
    assert first.std().item() == pytest.approx(1, abs=0.03)
    assert not first.equal(second)
    assert len(first.flatten(1).unique(dim=0)) == 512


@each_sampler
def test_image_does_not_depend_on_the_batch_it_is_in(
    model: Model, sample_settings: Sample, changes: dict[str, object]
) -> None:
    settings = sample_settings.model_copy(update=changes)
    *_, together = blocks.trajectory(model, settings, 0, 40)
    apart = [list(blocks.trajectory(model, settings, first, count))[-1].x_0 for first, count in blocks.batches(40, 16)]
    torch.testing.assert_close(torch.cat(apart), together.x_0, rtol=1e-4, atol=1e-5)


@each_sampler
def test_count_four_gives_the_first_four_images(
    model: Model, sample_settings: Sample, changes: dict[str, object]
) -> None:
    settings = sample_settings.model_copy(update=changes)
    many = blocks.draw(model, settings)
    few = blocks.draw(model, settings.model_copy(update={"count": 4, "batch_size": 250}))
    assert many.shape == (40, 3, 8, 8)
    assert many.dtype == torch.uint8
    # Batches of another size may round the network differently: by one grey level at most.
    torch.testing.assert_close(few.int(), many[:4].int(), rtol=0, atol=1)


@each_sampler
def test_trajectory_runs_from_pure_noise_along_the_times_to_the_image(
    model: Model, sample_settings: Sample, changes: dict[str, object]
) -> None:
    states = list(blocks.trajectory(model, sample_settings.model_copy(update=changes), 16, 3))
    assert [state.t for state in states] == [20, 16, 12, 8, 4, 0]
    assert states[0].x_t.equal(BlockNoise(0, 16, 3, (3, 8, 8), CPU)())
    assert not any(state.x_t.requires_grad for state in states)


def test_every_setting_of_the_sampler_changes_the_samples(model: Model, sample_settings: Sample) -> None:
    def drawn(**changes: object) -> torch.Tensor:
        return list(blocks.trajectory(model, sample_settings.model_copy(update=changes), 0, 2))[-1].x_0

    results = [
        drawn(),
        drawn(sigma="small"),
        drawn(clip=False),
        drawn(seed=1),
        drawn(steps=4),
        drawn(**DDIM),
        drawn(**DDIM | {"eta": 0.0}),
        drawn(**DDIM | {"clip": False}),
        drawn(**DPM_SOLVER),
        drawn(**DPM_SOLVER | {"clip": False}),
    ]
    assert len(torch.stack(results).flatten(1).unique(dim=0)) == len(results)


def test_draw_rounds_the_last_state_and_calls_progress_after_each_batch(model: Model, sample_settings: Sample) -> None:
    counts: list[int] = []
    samples = blocks.draw(model, sample_settings, progress=counts.append)
    assert counts == [16, 16, 8]
    *_, last = blocks.trajectory(model, sample_settings, 16, 16)
    assert samples[16:32].equal(images.to_uint8(last.x_0, (-1.0, 1.0)))


def test_batches_after_some_images_are_those_of_all_images(model: Model, sample_settings: Sample) -> None:
    every = list(blocks.drawn(model, sample_settings, None, Group(CPU)))
    assert [len(batch) for batch in every] == [16, 16, 8]
    assert torch.cat(every).equal(blocks.draw(model, sample_settings))
    for done, left in ((16, every[1:]), (32, every[2:]), (40, [])):
        found = list(blocks.drawn(model, sample_settings, None, Group(CPU), done))
        assert len(found) == len(left)
        assert all(batch.equal(expected) for batch, expected in zip(found, left, strict=True))


def test_the_processes_of_a_group_share_the_batches(model: Model, sample_settings: Sample) -> None:
    class Second(Group):
        """The second of two processes, which yields what it would send."""

        def in_turn(self, items: Sequence[Any], work: Callable[[Any], Any]) -> Iterator[Any]:
            yield from (work(item) for item in items[1::2])

    (own,) = blocks.drawn(model, sample_settings, None, Second(CPU))
    assert own.equal(blocks.draw(model, sample_settings)[16:32])


def test_same_seed_gives_the_same_bytes(model: Model, sample_settings: Sample) -> None:
    torch.manual_seed(1)
    first = blocks.draw(model, sample_settings)
    torch.manual_seed(2)
    assert blocks.draw(model, sample_settings).equal(first)


def labels(model: Model, settings: Sample, *wanted: str) -> list[int]:
    found = blocks.labels(model, settings.model_copy(update={"guidance": 1.0, "count": 5}), wanted or None)
    assert found is not None
    assert found.dtype == torch.int64
    return found.tolist()


def test_labels_under_guidance_are_all_classes_in_turn(conditional: Model, sample_settings: Sample) -> None:
    assert labels(conditional, sample_settings) == [0, 1, 2, 0, 1]


def test_there_are_no_labels_without_guidance(conditional: Model, sample_settings: Sample) -> None:
    assert blocks.labels(conditional, sample_settings) is None


@pytest.mark.parametrize(("label", "index"), [("a", 0), ("c", 2), ("0", 0), ("2", 2)])
def test_a_label_is_the_name_or_the_index_of_a_class(
    conditional: Model, sample_settings: Sample, label: str, index: int
) -> None:
    assert labels(conditional, sample_settings, label) == [index] * 5


def test_several_labels_are_drawn_in_turn(conditional: Model, sample_settings: Sample) -> None:
    assert labels(conditional, sample_settings, "c", "0", "c") == [2, 0, 2, 2, 0]


def test_a_label_that_is_a_name_and_an_index_is_the_name(conditional: Model, sample_settings: Sample) -> None:
    renamed = replace(conditional, description=replace(conditional.description, classes=["1", "0"]))
    assert labels(renamed, sample_settings, "1") == [0] * 5


@pytest.mark.parametrize("label", ["d", "3", "-1"])
def test_an_unknown_label_is_refused_with_the_classes(conditional: Model, sample_settings: Sample, label: str) -> None:
    with pytest.raises(ConflictError) as caught:
        labels(conditional, sample_settings, label)
    rule = "must be the name or index of a class: 0 a, 1 b, 2 c"
    assert caught.value.conflicts == [Conflict("sample.label", label, rule)]


def test_each_image_is_guided_to_its_label(conditional: Model, sample_settings: Sample) -> None:
    settings = sample_settings.model_copy(update={"guidance": 1.5})
    *_, apart = blocks.trajectory(conditional, settings, 16, 5, torch.arange(40) % 3)
    noise = BlockNoise(0, 16, 5, (3, 8, 8), CPU)
    denoiser = guide(conditional.denoiser, torch.tensor([1, 2, 0, 1, 2]), 1.5)  # 16 % 3 = 1
    *_, expected = ancestral(denoiser, noise(), [20, 16, 12, 8, 4], noise, "large", clip=True)
    torch.testing.assert_close(apart.x_0, expected.x_0)


def test_guidance_and_labels_change_the_samples(conditional: Model, sample_settings: Sample) -> None:
    def drawn(guidance: float | None, labels: torch.Tensor | None) -> torch.Tensor:
        settings = sample_settings.model_copy(update={"guidance": guidance})
        return list(blocks.trajectory(conditional, settings, 0, 2, labels))[-1].x_0

    zero, one = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    results = [drawn(None, None), drawn(0.0, zero), drawn(0.0, one), drawn(2.0, one)]
    assert len(torch.stack(results).flatten(1).unique(dim=0)) == len(results)


def test_chain_of_the_interpolation_process_starts_at_uniform_noise(sample_settings: Sample) -> None:
    course = Interpolation(
        process="interpolation", timesteps=20, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
    )
    basic = BasicNetwork(kind="basic", channels=2, multipliers=[1, 2], time=False, conditional=False)
    description = Description(course, basic, (3, 8, 8), [])
    model = modelfile.assemble(description, description.build(), "", CPU)
    settings = sample_settings.model_copy(update={**DDIM, "eta": 0.0})
    first = next(blocks.trajectory(model, settings, 16, 3))
    expected = torch.rand(16, 3, 8, 8, generator=rng.torch_generator(CPU, 0, "sample", 1))[:3]
    assert first.x_t.equal(expected)


@pytest.mark.parametrize(("number", "indices"), [(2, [0, 5]), (3, [0, 2, 5]), (6, range(6)), (40, range(6))])
def test_milestones_are_spread_over_the_whole_chain(
    number: int, indices: list[int], model: Model, sample_settings: Sample
) -> None:
    whole = list(blocks.trajectory(model, sample_settings, 0, 3))
    counts: list[int] = []
    found = blocks.milestones(model, sample_settings, None, 3, number, counts.append)
    assert [state.t for state in found] == [whole[index].t for index in indices]
    assert all(state.x_t.equal(whole[index].x_t) for state, index in zip(found, indices, strict=True))
    assert counts == [1] * len(whole)


def test_milestones_of_a_quad_chain_with_merged_times_reach_its_end(model: Model, sample_settings: Sample) -> None:
    short = sample_settings.model_copy(update={"steps": 18, "spacing": "quad"})
    assert [state.t for state in blocks.milestones(model, short, None, 1, 3)][-1] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_sampler
def test_steps_on_cuda_do_not_wait_for_the_device(
    conditional: Model, sample_settings: Sample, changes: dict[str, object]
) -> None:
    where = torch.device("cuda")
    model = modelfile.assemble(conditional.description, conditional.network.to(where), "", where)
    settings = sample_settings.model_copy(update=changes | {"guidance": 1.5})
    states = blocks.trajectory(model, settings, 0, 16, torch.arange(16) % 3)
    next(states)  # copies the labels, and makes handles and workspaces
    torch.cuda.set_sync_debug_mode("error")
    try:
        times = [state.t for state in states]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert times == [16, 12, 8, 4, 0]
