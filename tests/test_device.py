"""The choice of a device, and devices without float64.

No test here has run on MPS. The device "meta" with fake tensors stands in for it: they compute shapes, dtypes and
devices, and refuse to mix devices.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm import device
from ddpm.device import for_float64, memory_format, resolve
from ddpm.diffusion import bound, process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.errors import UsageError
from ddpm.params import Diffusion, Gaussian, Interpolation, Sample, Train
from ddpm.sampling import samplers
from ddpm.training.curve import LossCurve
from ddpm.training.loop import Record
from ddpm.training.objective import loss

STAND_IN = torch.device("meta")


class _NoFloat64(TorchDispatchMode):
    """Fails when an operation has a float64 result on the stand-in."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device == STAND_IN:
                assert tensor.dtype != torch.float64, function
        return result


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device, "_WITHOUT_FLOAT64", ("meta",))
    with _NoFloat64(), FakeTensorMode():
        yield


def network(x_t: Tensor, index: Tensor) -> Tensor:
    return x_t.sin() * (1 + index.view(-1, 1, 1, 1))


def wide(x_t: Tensor, index: Tensor) -> Tensor:
    return network(x_t, index).repeat(1, 2, 1, 1)


def images() -> Tensor:
    return torch.rand(3, 1, 4, 4, device=STAND_IN, requires_grad=True)


def times() -> Tensor:
    return torch.randint(2, 20, (3,), device=STAND_IN)


@pytest.mark.usefixtures("mps")
def test_the_fake_refuses_what_mps_cannot_do() -> None:
    with pytest.raises(AssertionError):
        images().double()
    with pytest.raises(RuntimeError, match="same device"):
        images() + torch.ones(3, 1, 4, 4)


@pytest.mark.usefixtures("mps")
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v", "mu"])
@pytest.mark.parametrize(
    ("variance", "kind", "weighting"),
    [("fixed", "simple", "none"), ("fixed", "simple", "min_snr"), ("fixed", "vlb", "none"), ("learned", "vlb", "none"),
     ("learned_range", "hybrid", "none")],
)  # fmt: skip
def test_losses_need_no_float64_on_the_device(
    diffusion_settings: Gaussian, train_settings: Train, prediction: Any, variance: Any, kind: Any, weighting: Any
) -> None:
    settings = diffusion_settings.model_copy(update={"prediction": prediction, "variance": variance})
    forward = network if variance == "fixed" else wide
    denoiser = Denoiser(forward, process.from_settings(settings, STAND_IN), settings)
    changes = {"loss": kind, "weighting": weighting, "min_snr_gamma": 5.0}
    x_0 = images()
    found = loss(denoiser, x_0, times(), torch.rand_like(x_0), train_settings.model_copy(update=changes))
    found.backward()
    assert (found.device, found.dtype) == (STAND_IN, torch.float32)


COURSE = Interpolation(
    process="interpolation", timesteps=20, prediction="x_0", variance="fixed", value_range=[-1.0, 1.0]
)


@pytest.mark.usefixtures("mps")
@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"sampler": "ancestral", "sigma": "large"}, None),
        ({"sampler": "ancestral", "sigma": "small"}, None),
        ({"sampler": "ddim", "eta": 1.0}, None),
        ({"sampler": "dpm_solver"}, None),
        ({"sampler": "ddim", "eta": 0.0}, COURSE),
    ],
)
def test_samplers_need_no_float64_on_the_device(
    diffusion_settings: Gaussian, sample_settings: Sample, changes: dict[str, Any], settings: Diffusion | None
) -> None:
    settings = settings or diffusion_settings
    denoiser = Denoiser(network, process.from_settings(settings, STAND_IN), settings)
    chosen = sample_settings.model_copy(update=changes)
    x = images().detach()
    *_, last = samplers.reverse(denoiser, chosen, x, samplers.timesteps(chosen, 20), lambda: torch.rand_like(x))
    assert (last.x_0.device, last.x_0.dtype) == (STAND_IN, torch.float32)


@pytest.mark.usefixtures("mps")
def test_the_prior_term_and_the_loss_curve_need_no_float64_on_the_device(diffusion_settings: Gaussian) -> None:
    forward = process.GaussianProcess(process.schedule.alpha_bar(diffusion_settings), STAND_IN)
    term = bound.prior_term(forward, images())
    assert (term.device, term.dtype) == (STAND_IN, torch.float32)
    curve = LossCurve(2, STAND_IN)
    scalar = torch.rand((), device=STAND_IN)
    assert [curve.add(Record(step, scalar, scalar, 0.1)) for step in (1, 2)] == [False, True]


@pytest.mark.parametrize("name", ["gpu", "mps:0", "cuda:", "meta"])
def test_an_unknown_device_is_refused_with_the_devices(name: str) -> None:
    with pytest.raises(UsageError, match=rf"^device '{name}': must be auto, cpu, cuda, cuda:N or mps$"):
        resolve(name)


@pytest.mark.parametrize(("available", "given"), [(True, "mps"), (False, None)])
def test_mps_is_used_where_torch_has_it_and_only_if_it_is_named(
    available: bool, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend, answer in ((torch.backends.mps, available), (torch.cuda, False)):
        monkeypatch.setattr(backend, "is_available", lambda answer=answer: answer)
    assert resolve("auto").type == "cpu"
    if given:
        assert resolve("mps") == torch.device(given)
    else:
        with pytest.raises(UsageError, match=r"^device 'mps': this machine has no MPS; use cpu or auto$"):
            resolve("mps")


def test_only_mps_keeps_float64_on_the_cpu() -> None:
    assert [str(for_float64(name)) for name in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda:1", "cpu"]
    assert memory_format(torch.device("mps"), "fp32") == torch.contiguous_format
    assert memory_format(torch.device("cpu"), "fp32") == torch.channels_last
