"""Random streams: one per address, the same on every machine, independent of the global state."""

import numpy as np
import torch

from ddpm import rng

CPU = torch.device("cpu")


def test_same_address_gives_the_same_numbers() -> None:
    first, second = (torch.rand(5, generator=rng.torch_generator(CPU, 3, "train", 7, 1)) for _ in range(2))
    assert first.equal(second)
    a, b = (rng.numpy_generator(3, "order", 2).permutation(50) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_different_addresses_give_different_streams() -> None:
    addresses: list[tuple[int, str, *tuple[int, ...]]] = [
        (0, "train"),
        (0, "train", 0),
        (0, "train", 0, 0),
        (0, "train", 1, 0),
        (0, "train", 0, 1),
        (0, "train", 10),
        (1, "train", 0),
        (0, "sample", 0),
        (0, "train", 12, 3),
        (0, "train", 1, 23),
        (2**62, "train"),
    ]
    assert len({rng.torch_seed(*address) for address in addresses}) == len(addresses)
    drawn = {tuple(rng.numpy_generator(*address).integers(0, 2**60, 2).tolist()) for address in addresses}
    assert len(drawn) == len(addresses)


def test_numbers_are_the_same_in_every_process_and_release() -> None:
    """The values are pinned, because every published result depends on them."""
    assert rng.torch_seed(0, "train", 1, 0) == 14272694430009526984
    assert rng.numpy_generator(0, "order", 0).permutation(8).tolist() == [7, 1, 5, 0, 3, 6, 2, 4]


def test_torch_accepts_the_torch_seed() -> None:
    seeds = [rng.torch_seed(0, "train", step) for step in range(200)]
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**62  # all 64 bits are used
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() % 2**64 == max(seeds)


def test_global_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = torch.rand(3, generator=rng.torch_generator(CPU, 0, "train"))
    rng.numpy_generator(0, "order").random()
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert torch.rand(3, generator=rng.torch_generator(CPU, 0, "train")).equal(first)


def test_generators_of_adjacent_indices_are_not_correlated() -> None:
    rows = torch.stack([torch.randn(4000, generator=rng.torch_generator(CPU, 0, "sample", j)) for j in range(20)])
    correlation = torch.corrcoef(rows) - torch.eye(20)
    assert correlation.abs().max().item() < 0.08  # five standard deviations
