"""The choice of a device, and devices without float64.

No test here has run on MPS. The device "meta" with fake tensors stands in for it: they compute shapes, dtypes and
devices, and refuse to mix devices.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm import device
from ddpm.device import compilation, compiled_for_inference, compiled_for_training, for_float64, memory_format, resolve
from ddpm.diffusion import bound, process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.errors import UsageError
from ddpm.network.unet import UNet
from ddpm.params import Diffusion, Gaussian, Interpolation, Sample, Train, UNetNetwork
from ddpm.sampling import samplers
from ddpm.training.curve import LossCurve
from ddpm.training.loop import Record
from ddpm.training.objective import loss
from tests.stages.conftest import changed

STAND_IN = torch.device("meta")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LARGE = (35_746_307, 800_000 * 128 * 3)  # parameters and passes of the paper's training


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


@pytest.mark.parametrize("name", ["gpu", "mps:0", "cuda:", "cuda:128", "cuda:99999999999999", "meta"])
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


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretends that there is a GPU, and restores torch's settings."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = False


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("where", "deterministic", "fast"),
    [("cuda", False, True), ("cuda", True, False), ("cpu", False, False), ("cpu", True, False)],
)
def test_tf32_and_measured_kernels_are_only_for_cuda_that_need_not_be_deterministic(
    where: str, deterministic: bool, fast: bool
) -> None:
    settings = changed(runtime={"device": where, "deterministic": deterministic}).runtime
    assert device.prepare(settings) == torch.device(where)
    assert torch.get_float32_matmul_precision() == ("high" if fast else "highest")
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == (fast, fast)
    assert torch.are_deterministic_algorithms_enabled() == deterministic


@pytest.mark.parametrize(
    ("setting", "where", "size", "chosen", "reason"),
    [
        (False, CUDA, LARGE, False, ""),
        (True, CPU, (1, 1), True, "compiles the network, which takes about a minute"),
        ("auto", CUDA, LARGE, True, "compiles the network, which takes about a minute"),
        ("auto", CUDA, (701_345, 480_000), False, "3.4e+11 parameters times images is less than 1.4e+14"),
        ("auto", CPU, LARGE, False, "that pays only on CUDA"),
    ],
)
def test_a_network_is_compiled_where_the_setting_or_the_work_asks_for_it(
    setting: Any, where: torch.device, size: tuple[int, int], chosen: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "sh")  # there is one on every machine
    decision = compilation(setting, where, *size)
    assert decision.chosen == chosen
    assert decision.reason.endswith(reason)


def test_without_a_compiler_true_is_an_error_and_auto_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"^runtime.compile = true: there is no C\+\+ compiler 'no-such-compiler'; "):
        compilation(True, CPU, *LARGE)
    decision = compilation("auto", CUDA, *LARGE)
    assert not decision.chosen
    assert decision.reason.endswith("(auto): there is no C++ compiler 'no-such-compiler'")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces torch.compile by the uncompiled network; returns the options of each compilation and each input."""
    seen: list[Any] = []

    def uncompiled(network: Callable[..., Any], dynamic: bool, options: dict[str, Any]) -> Callable[..., Any]:
        assert not dynamic
        seen.append(options)

        def forward(x: Tensor, *rest: Any) -> Any:
            seen.append(x)
            return network(x, *rest)

        return forward

    monkeypatch.setattr(torch, "compile", uncompiled)
    return seen


def test_only_batches_of_one_size_run_compiled(calls: list[Any]) -> None:
    forward = compiled_for_inference(torch.nn.Identity(), CPU, deterministic=True, batch_size=4)
    for count in (4, 3, 4, 5):
        x = torch.rand(count, 1, 2, 2)
        assert forward(x).equal(x)
    assert [len(x) for x in calls[1:]] == [4, 4]


def test_compiled_networks_receive_one_memory_format(calls: list[Any]) -> None:
    forward = compiled_for_inference(torch.nn.Identity(), CPU, deterministic=True, batch_size=2)
    for channels in (1, 3):
        for x in (torch.rand(2, channels, 4, 5), torch.rand(2, 4, 5, channels).permute(0, 3, 1, 2)):
            forward(x)
        assert {x.stride() for x in calls[-2:]} == {(20 * channels, 20, 5, 1)}


def test_kernels_are_chosen_by_measurement_only_if_results_may_differ(calls: list[Any]) -> None:
    network = torch.nn.Identity()
    for deterministic in (True, False):
        compiled_for_training(network, CUDA, deterministic, accumulate=1)
        compiled_for_inference(network, CUDA, deterministic, 4)
    assert [options.get("max_autotune", False) for options in calls] == [False, False, True, True]
    assert [options.get("deterministic", False) for options in calls] == [True, True, False, False]
    assert all(options["triton.cudagraphs"] for options in calls)


def test_training_with_micro_batches_uses_no_cuda_graphs(calls: list[Any]) -> None:
    for accumulate in (1, 2):
        compiled_for_training(torch.nn.Identity(), CUDA, True, accumulate)
    assert [options["triton.cudagraphs"] for options in calls] == [True, False]


def unet(settings: UNetNetwork, where: torch.device = CPU) -> UNet:
    """A network with random weights, on channels-last memory."""
    torch.manual_seed(0)
    made = UNet(settings, 3, 8, 3, 0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.to(where).to(memory_format=torch.channels_last)


@pytest.mark.slow
def test_a_network_compiled_for_inference_computes_the_same(network_settings: UNetNetwork) -> None:
    network = unet(network_settings).eval().requires_grad_(False)
    forward = compiled_for_inference(network, CPU, deterministic=True, batch_size=4)
    with torch.no_grad():
        for count in (4, 3):
            x, index = torch.randn(count, 3, 8, 8), torch.tensor([7])
            torch.testing.assert_close(forward(x, index), network(x, index), rtol=1e-4, atol=1e-5)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("deterministic", [True, False])
def test_outputs_of_cuda_graphs_are_not_overwritten(network_settings: UNetNetwork, deterministic: bool) -> None:
    network = unet(network_settings, CUDA).eval().requires_grad_(False)
    forward = compiled_for_inference(network, CUDA, deterministic, 4)
    xs, index = torch.randn(5, 4, 3, 8, 8, device=CUDA), torch.tensor([7], device=CUDA)
    with torch.no_grad():
        found = [forward(x, index) for x in xs]
        for x, output in zip(xs, found, strict=True):
            torch.testing.assert_close(output, network(x, index), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("accumulate", [1, 3])
def test_gradients_of_a_network_compiled_for_training_are_the_same(
    network_settings: UNetNetwork, accumulate: int
) -> None:
    def gradients(compiled: bool) -> list[Tensor]:
        network = unet(network_settings, CUDA)
        forward = compiled_for_training(network, CUDA, True, accumulate) if compiled else network
        xs = torch.randn(3, accumulate, 4, 3, 8, 8, generator=torch.Generator(CUDA).manual_seed(1), device=CUDA)
        index = torch.tensor([7, 1, 0, 3], device=CUDA)
        for step in xs:  # CUDA graphs are recorded in the second step and replayed in the third
            network.zero_grad()
            for x in step:
                (forward(x, index) - x).square().mean().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-3, atol=1e-5)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_of_several_processes_has_the_gpu_of_its_rank(name: str) -> None:
    assert [device.resolve(name, rank, 2) for rank in range(2)] == [torch.device("cuda:0"), torch.device("cuda:1")]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "processes", "message"),
    [
        ("auto", 3, "there are 3 processes on this machine and 2 CUDA devices; start as many processes as devices"),
        ("cuda:1", 2, "device 'cuda:1': 2 processes on this machine would share it; use auto or cpu"),
    ],
)
def test_processes_that_would_share_a_gpu_are_refused(name: str, processes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        device.resolve(name, 0, processes)


@pytest.mark.usefixtures("two_gpus")
def test_several_processes_may_share_the_cpu() -> None:
    assert device.resolve("cpu", 2, 3) == torch.device("cpu")
