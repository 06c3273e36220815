"""The source of every random number: a generator for each (seed, purpose, index...).

No generator is shared or global. Stopping and resuming therefore changes nothing, and no part of the work depends on
how many numbers another part has drawn.
"""

import hashlib

import numpy as np
import torch


def seed_sequence(seed: int, purpose: str, *index: int) -> np.random.SeedSequence:
    """The seed sequence of an address (seed, purpose, index...). Different addresses give independent streams.

    The whole address is hashed because `SeedSequence` pads with zeros: (1,) and (1, 0) would be the same stream.
    """
    address = "/".join([str(seed), purpose, *map(str, index)])
    return np.random.SeedSequence(int.from_bytes(hashlib.sha256(address.encode()).digest()))


def torch_seed(seed: int, purpose: str, *index: int) -> int:
    """A 64-bit seed for torch's own generators."""
    return int(seed_sequence(seed, purpose, *index).generate_state(1, np.uint64)[0])


def torch_generator(device: torch.device, seed: int, purpose: str, *index: int) -> torch.Generator:
    """A torch generator on `device`. Its numbers depend on the kind of device, CPU or CUDA."""
    return torch.Generator(device).manual_seed(torch_seed(seed, purpose, *index))


def numpy_generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A numpy generator, for numbers that are drawn once on the host: splits and orders."""
    return np.random.default_rng(seed_sequence(seed, purpose, *index))
