"""Tiny sections of params.yaml that the tests start from; `model_copy(update=...)` changes what a test is about."""

import pytest
import torch

from ddpm.params import Gaussian, Sample, Train, UNetNetwork


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first, so that no process is left with them at the end."""
    items.sort(key=lambda item: "tests/pipeline/" not in item.nodeid)


@pytest.fixture(autouse=True)
def single_thread() -> None:
    """These tensors are tiny: a second thread makes every operation wait, ten times over on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def diffusion_settings() -> Gaussian:
    """Twenty steps that end close to pure noise."""
    return Gaussian(
        process="gaussian",
        timesteps=20,
        schedule="linear",
        beta_start=0.01,
        beta_end=0.4,
        prediction="eps",
        variance="fixed",
        value_range=[-1.0, 1.0],
    )


@pytest.fixture
def network_settings() -> UNetNetwork:
    """Two levels for images of 8 x 8, with attention at 4 x 4."""
    return UNetNetwork(
        kind="unet",
        channels=8,
        multipliers=[1, 2],
        blocks=1,
        attention=[4],
        heads=2,
        groups=4,
        norm_eps=1e-6,
        dropout=0.0,
        time=True,
        downsample="asymmetric",
        conditional=False,
    )


@pytest.fixture
def train_settings() -> Train:
    """Seven steps of four images."""
    return Train(
        seed=0,
        steps=7,
        batch_size=4,
        accumulate=1,
        learning_rate=1e-2,
        learning_rate_decay="constant",
        warmup=0,
        betas=[0.9, 0.999],
        grad_clip=1.0,
        ema_decay=0.9,
        ema_every=1,
        loss="simple",
        weighting="none",
        min_snr_gamma=None,
        horizontal_flip=False,
        label_dropout=None,
        precision="fp32",
        snapshots=[],
        on_divergence="stop",
        rewind_every=None,
        init=None,
    )


@pytest.fixture
def sample_settings() -> Sample:
    """Two blocks and a half by five steps of ancestral sampling."""
    return Sample(
        seed=0,
        count=40,
        batch_size=16,
        sampler="ancestral",
        steps=5,
        spacing="trailing",
        eta=None,
        sigma="large",
        clip=True,
        guidance=None,
        precision="fp32",
    )
