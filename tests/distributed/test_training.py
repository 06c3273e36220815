"""Trainings that processes share, and that end: by an error, by a signal, on one of two machines."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ddpm import files
from tests.distributed.conftest import TRAIN, digests
from tests.pipeline.project import Project, environment

Anew = Callable[[], Project]
TORCHRUN = ("python", "-m", "lab.launch", "--standalone")


@contextmanager
def running(project: Project, processes: int, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A training by several processes, after its first checkpoint."""
    command = [*TORCHRUN, f"--nproc-per-node={processes}", *options, *TRAIN]
    started = subprocess.Popen(
        command, cwd=project.path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: list(project.path.glob(".ckpt/*/step-*.safetensors")))
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def workers(launcher: int) -> list[int]:
    """The process ids of the workers that a launcher has started, by rank."""
    listed = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=True).stdout
    by_rank = {}
    for worker in map(int, listed.split()):
        variables = Path(f"/proc/{worker}/environ").read_text().split("\0")
        by_rank[int(dict(line.partition("=")[::2] for line in variables)["RANK"])] = worker
    return [by_rank[rank] for rank in sorted(by_rank)]


def test_all_processes_killed_and_continued_by_another_number_give_the_same_bytes(
    anew: Anew, expected: dict[str, str]
) -> None:
    project = anew()
    with running(project, 4) as training:
        for process in (training.pid, *workers(training.pid)):
            os.kill(process, signal.SIGKILL)
        training.communicate()
    assert not (project.path / "models/model.safetensors").exists()
    done = project.run(*TORCHRUN, "--nproc-per-node=2", *TRAIN)
    assert re.search(r"train: cpu, 2 processes \(the same bytes as one\).*\ntrain: continues from step \d", done.stderr)
    assert digests(project) == expected


@pytest.mark.slow
def test_the_workers_of_a_killed_launcher_write_a_checkpoint_and_end(anew: Anew) -> None:
    with running(anew(), 2) as training:
        started = workers(training.pid)
        os.kill(training.pid, signal.SIGKILL)
        _, said = training.communicate(timeout=100)  # until the last process has closed standard error
    assert "train: ended by SIGTERM; the same command continues from step" in said
    wait_for(lambda: not [worker for worker in started if Path(f"/proc/{worker}").exists()])


def test_torchrun_restarts_after_a_worker_was_killed(anew: Anew, expected: dict[str, str]) -> None:
    project = anew()
    with running(project, 2, "--max-restarts=1") as training:
        os.kill(workers(training.pid)[1], signal.SIGKILL)
        _, said = training.communicate(timeout=100)
    assert training.returncode == 0, said
    assert "train: another process that shares the work has ended or cannot be reached\n" in said
    assert len(re.findall("train: continues from step", said)) == 1
    assert digests(project) == expected


def test_a_killed_worker_is_named_and_ends_all(anew: Anew) -> None:
    with running(anew(), 2) as training:
        os.kill(workers(training.pid)[1], signal.SIGKILL)
        begin = time.monotonic()
        _, said = training.communicate(timeout=100)
    assert time.monotonic() - begin < 60  # 2 seconds if the machine has nothing else to do
    assert training.returncode == 128 + signal.SIGKILL
    assert "process 1 was ended by SIGKILL, as the system does when memory runs out\n" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_writes_a_checkpoint_at_the_next_step(
    number: signal.Signals, anew: Anew, expected: dict[str, str]
) -> None:
    project = anew()
    with running(project, 2) as training:
        for process in (training.pid, *workers(training.pid)):  # as Slurm does
            os.kill(process, number)
        _, said = training.communicate(timeout=100)
    assert training.returncode == 128 + number
    message = re.search(rf"\ntrain: ended by {number.name}; the same command continues from step (\d+)\n$", said)
    assert message
    assert "Traceback" not in said
    done = project.run("python", *TRAIN)
    assert f"train: continues from step {message[1]}\n" in done.stderr
    assert digests(project) == expected


def test_the_faster_exchange_gives_the_weights_of_one_process_within_rounding(
    anew: Anew, expected: dict[str, str]
) -> None:
    project = anew()
    project.run("python", *TRAIN)
    exact = files.read_tensors(project.path / "models/model.safetensors").tensors
    exact = {name: tensor.clone() for name, tensor in exact.items()}
    curve = points(project)
    anew().set(runtime__deterministic=False)
    try:
        done = project.run(*TORCHRUN, "--nproc-per-node=2", *TRAIN)
    finally:
        project.set(runtime__deterministic=True)
    assert "2 processes (equal to one within rounding)" in done.stderr
    assert digests(project) != expected
    found = files.read_tensors(project.path / "models/model.safetensors").tensors
    for name, tensor in exact.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-4)
    assert points(project) == pytest.approx(curve, rel=1e-3)


def points(project: Project) -> list[float]:
    """All numbers of the loss curve: steps, losses, gradient norms, learning rates."""
    _, *lines = (project.path / "reports/train.csv").read_text().splitlines()
    return [float(number) for line in lines for number in line.split(",")]


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("from ddpm.errors import UsageError; raise UsageError('planted')", "train: process 1: planted\n"),
        pytest.param("1 / 0", "train: process 1: Traceback (most recent call last):\n", marks=pytest.mark.slow),
    ],
)
def test_an_error_of_one_process_ends_all_with_its_message_once(planted: str, said: str, anew: Anew) -> None:
    project = anew()
    stage = project.path / "stages/train.py"
    original = stage.read_text()
    mark = project.path / "planted"
    late = f"            if self._learner.step == 3:\n                Path({str(mark)!r}).touch()\n"
    late += f"                {planted}\n"
    before, loop, after = original.partition("        for _ in self._steps(None).records():\n")
    stage.write_text(before + loop + late + after)
    try:
        done = project.run(*TORCHRUN, "--nproc-per-node=2", *TRAIN, check=False)
        assert time.time() - mark.stat().st_mtime < 60  # 2 seconds if the machine has nothing else to do
    finally:
        stage.write_text(original)
        mark.unlink()
    assert done.returncode == 1
    assert done.stderr.count("train: process 1:") == 1
    assert said in done.stderr
    assert "another process" not in done.stderr
    assert done.stderr.count("Traceback") == said.count("Traceback")


def test_a_number_of_processes_that_cannot_share_is_one_line(anew: Anew) -> None:
    done = anew().run(*TORCHRUN, "--nproc-per-node=3", *TRAIN, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"train: (process \d: )?train.accumulate = 4: 3 processes cannot .*\n", done.stderr)


def test_a_missing_launcher_is_one_line(anew: Anew) -> None:
    project = anew()
    project.set(runtime__launcher="mpirun-of-mine -n 2")
    try:
        done = project.run("python", *TRAIN, check=False)
    finally:
        project.set(runtime__launcher=None)
    assert done.returncode == 1
    assert done.stderr == "train: runtime.launcher = 'mpirun-of-mine -n 2': there is no program 'mpirun-of-mine'\n"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces that reach each other only over a link, as two machines do: (name, address) of each."""
    names = [f"ddpm-{os.getpid()}-{host}" for host in "ab"]
    addresses = ["10.231.7.1", "10.231.7.2"]
    if shutil.which("ip") is None:
        pytest.skip("ip is missing: apt-get install iproute2")
    try:
        for name in names:
            _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this user may not make network namespaces: {error.stderr.decode().strip()}")
    try:
        ends = [f"d{os.getpid()}{host}" for host in "ab"]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, addresses, strict=True):
            _ip("link", "set", end, "netns", name)
            for link, action in (("lo", ("up",)), (end, ("name", "veth")), ("veth", ("up",))):
                _ip("-n", name, "link", "set", link, *action)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "veth")
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.slow
def test_two_machines_give_the_bytes_of_one_process(
    hosts: tuple[str, str], anew: Anew, expected: dict[str, str]
) -> None:
    project = anew()
    started = []
    for rank, name in enumerate(hosts):
        rendezvous = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=10.231.7.1:29400", "--rdzv-id=1"]
        local = [f"--rdzv-conf=is_host={rank == 0}", f"--local-addr=10.231.7.{rank + 1}", "--nproc-per-node=1"]
        command = ["ip", "netns", "exec", name, "torchrun", *rendezvous, *local, *TRAIN]
        variables = environment() | {"GLOO_SOCKET_IFNAME": "veth", "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen(command, cwd=project.path, env=variables, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "2 processes (the same bytes as one)" in "".join(said)
    assert digests(project) == expected


FAULTY = """
import torch
from ddpm.training import loop

def faulty(denoiser, x_0, t, eps, settings):
    loss = compute(denoiser, x_0, t, eps, settings)
    return loss * torch.nan if eps[0, 0, 0, 0] > 2 else loss  # in one of the micro-batches

compute, loop.loss_of = loop.loss_of, faulty

from lab import stage
from stages.train import train

stage.run(train)
"""


@pytest.mark.slow
def test_any_number_of_processes_goes_back_from_a_loss_that_is_not_finite_to_the_same_bytes(anew: Anew) -> None:
    project = anew()
    project.set(train__on_divergence="rewind", train__rewind_every=10)
    (project.path / "faulty.py").write_text(FAULTY)
    try:
        done = project.run("python", "faulty.py", *TRAIN[2:])
        expected = digests(project)
        assert len(re.findall("goes back to step", done.stderr)) >= 2
        for processes in (2, 4):
            anew()
            said = project.run(*TORCHRUN, f"--nproc-per-node={processes}", "faulty.py", *TRAIN[2:]).stderr
            assert said.count("goes back to step") == done.stderr.count("goes back to step")
            assert digests(project) == expected
    finally:
        project.git("checkout", "-q", "params.yaml")
