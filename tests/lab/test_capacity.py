"""The memory and disk of this machine, and stages that fail before their work if these cannot suffice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from ddpm import estimate
from ddpm.errors import UsageError
from ddpm.params import Params, check
from lab import capacity
from tests.test_params import changed

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB of memory, a GPU of 4 GB, and 2 GB of free disk."""
    monkeypatch.setattr(capacity, "memory", lambda: 8 * GB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=4 * GB))
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * GB))


def of(changes: dict[str, Any]) -> Params:
    return check(changed(changes))


def failure(stage: str, changes: dict[str, Any], device: torch.device = CPU, processes: int = 1) -> str:
    with pytest.raises(UsageError) as caught:
        capacity.check(stage, of(changes), device, processes)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_the_default_recipe_fits(device: torch.device) -> None:
    for stage in (*estimate.experiment(of({})).stages, "report", "unknown"):
        capacity.check(stage, of({}), device, 1)


@pytest.mark.parametrize(
    ("stage", "changes", "start", "end"),
    [
        ("train", {"network.channels": 4096}, "the state of the network needs at least 228 GB", "network.channels"),
        (
            "train",
            {"train.batch_size": 100_000},
            "the network with a batch of 100,000 images needs at least 51.4 GB",
            "train.batch_size or raise train.accumulate",
        ),
        (
            "sample",
            {"sample.batch_size": 10**6, "sample.count": 10**7},
            "the network with a batch of 1,000,000 images needs at least",
            "sample.batch_size",
        ),
        (
            "reference",
            {"evaluate.classifier": {"channels": 32, "steps": 1, "batch_size": 10**6, "learning_rate": 0.1}},
            "the network with a batch of 1,000,000 images needs at least",
            "evaluate.classifier.batch_size",
        ),
        ("evaluate", {"network.channels": 8192}, "the state of the network needs at least", "network.channels"),
    ],
)
def test_a_stage_that_cannot_fit_into_memory_names_the_key_to_lower(
    stage: str, changes: dict[str, Any], start: str, end: str
) -> None:
    line = failure(stage, changes)
    assert line.startswith(start)
    assert line.endswith(f"of memory, and this machine has 8 GB: lower {end}")


def test_the_memory_of_a_gpu_counts_where_it_is_used() -> None:
    changes = {"train.batch_size": 10_000}
    capacity.check("train", of(changes), CPU, 1)
    assert failure("train", changes, CUDA).endswith(
        "the GPU has 4 GB: lower train.batch_size or raise train.accumulate"
    )


def test_processes_share_the_memory_of_the_machine_but_each_has_its_gpu() -> None:
    changes = {"train.batch_size": 3_000 * 4, "train.accumulate": 4}
    capacity.check("train", of(changes), CPU, 1)
    capacity.check("train", of(changes), CUDA, 8)
    assert "this machine has 8 GB" in failure("train", changes, CPU, 8)


@pytest.mark.parametrize(
    ("stage", "changes", "key"),
    [
        ("prepare", {"data.image_size": 4096, "network.attention": []}, "data.image_size"),
        ("sample", {"sample.count": 100_000_000}, "sample.count"),
        ("train", {"network.channels": 700, "network.groups": 7}, "network.channels"),
    ],
)
def test_a_stage_whose_files_cannot_fit_names_the_key_to_lower(
    stage: str, changes: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = failure(stage, changes)
    assert line.startswith("the files to write need ")
    assert f"of disk, and {tmp_path} has 2 GB free: lower {key}, or remove files (`ddpm clean`" in line


def test_nothing_is_refused_for_memory_that_only_the_estimate_has() -> None:
    """A compiled network or bf16 may need much less than float32 does."""
    changes = {"train.batch_size": 20_000}
    assert "needs at least 10.3 GB" in failure("train", changes)
    for smaller in ({"train.precision": "bf16"}, {"runtime.compile": True}):
        capacity.check("train", of(changes | smaller), CPU, 1)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (1_234_567, "1.23 MB"),
        (25 * GB, "25 GB"),
        (3_710 * GB, "3.71 TB"),
        (10**27, "1,000,000,000,000,000 TB"),
    ],
)
def test_sizes_are_texts_for_people(count: int, text: str) -> None:
    assert capacity.size(count) == text


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "3000000000\n", "a/b/memory.max": "max\n"}, 3 * GB),
        ("0::/a\n", {"a/memory.max": "max\n"}, None),
        ("5:cpu:/x\n4:memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "2000000000\n"}, 2 * GB),
        ("4:memory:/x\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
)
def test_the_limit_of_a_container_counts(
    cgroup: str, files: dict[str, str], limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "cgroup").write_text(cgroup)
    monkeypatch.setattr(capacity, "_CGROUPS", tmp_path)
    monkeypatch.setattr(capacity, "_OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GB))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=GB))
    assert capacity.memory() == (limit or 16 * GB) + GB


def test_the_free_disk_of_a_folder_to_be_made_is_that_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert capacity.free_disk(tmp_path / "a/b") == pytest.approx(capacity.free_disk(tmp_path), rel=0.01)


def test_a_machine_without_a_gpu_has_none() -> None:
    if not torch.cuda.is_available():
        assert capacity.gpu_memory() is None
