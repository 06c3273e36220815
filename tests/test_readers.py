"""Every reader of tensor files refuses other files and damaged files with one line that names the file."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddpm import files, mapped
from ddpm.data import dataset
from ddpm.evaluation import extractor, features
from ddpm.evaluation.extractor import ClassifierNetwork
from ddpm.evaluation.features import Features, Reference
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.params import Gaussian, Train, UNetNetwork
from ddpm.sampling import samples
from ddpm.sampling.samples import Samples
from ddpm.training import checkpoint
from ddpm.training.curve import LossCurve
from tests.training.runs import CPU, Run, start

Readers = dict[str, Callable[[Path], object]]
READERS = {  # and the kind of file that each reads
    "dataset.read": "data",
    "modelfile.load": "model",
    "modelfile.initialise": "model",
    "modelfile.check_compatible": "model",
    "extractor.load": "extractor",
    "features.read": "reference",
    "samples.read": "samples",
    "samples.read_snapshots": "snapshot-samples",
    "checkpoint.load": "state",
}
FORMATS = {
    "data": dataset.FORMAT,
    "model": modelfile.FORMAT,
    "extractor": extractor.FORMAT,
    "reference": features.FORMAT,
    "samples": samples.FORMAT,
    "snapshot-samples": samples.SNAPSHOTS_FORMAT,
    "state": checkpoint.FORMAT,
}


@pytest.fixture
def run(train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian) -> Run:
    return start(train_settings, network_settings, diffusion_settings)


@pytest.fixture
def description(network_settings: UNetNetwork, diffusion_settings: Gaussian) -> Description:
    return Description(diffusion_settings, network_settings, (3, 8, 8), ["one"])


@pytest.fixture
def readers(run: Run, description: Description) -> Readers:
    return {
        "dataset.read": dataset.read,
        "modelfile.load": modelfile.load,
        "modelfile.initialise": lambda path: modelfile.initialise(run.learner.network, path),
        "modelfile.check_compatible": lambda path: modelfile.check_compatible(path, description, whole=True),
        "extractor.load": lambda path: extractor.load(path, CPU),
        "features.read": features.read,
        "samples.read": samples.read,
        "samples.read_snapshots": samples.read_snapshots,
        "checkpoint.load": lambda path: checkpoint.load(path, run.learner, LossCurve(3, CPU)),
    }


@pytest.fixture
def folder(tmp_path: Path, run: Run, description: Description) -> Path:
    """A folder with a file of each kind."""
    images = torch.arange(5 * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(5, 3, 8, 8)
    labels = torch.zeros(5, dtype=torch.int64)
    found = Features(torch.rand(5, 7), torch.rand(5, 2))
    classifier = {"kind": "classifier", "image_channels": 3, "classes": 2, "channels": 2, "accuracy": 0.5}

    def path(kind: str) -> Path:
        return tmp_path / f"{kind}.safetensors"

    dataset.write(path("data"), images.numpy(), labels.numpy(), ["one"], (3, 8, 8), {"name": "made"})
    modelfile.save(path("model"), description, run.learner.network.state_dict())
    network = ClassifierNetwork(3, 2, 2)
    files.write_tensors(path("extractor"), network.state_dict(), {"format": extractor.FORMAT} | classifier)
    features.write(path("reference"), Reference(found, found, "classifier", "a", "b", "c", {"name": "made"}))
    samples.write(path("samples"), Samples(images, labels, {"steps": 3}, "digest"))
    samples.write_snapshots(path("snapshot-samples"), {5: images, 30: 255 - images})
    checkpoint.save(path("state"), run.learner, LossCurve(3, CPU), "a training")
    return tmp_path


def refused(read: Callable[[Path], object], path: Path) -> str:
    """The message of a reader that refuses a file; it is one line that begins with the path."""
    with pytest.raises(files.TensorFileError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    assert caught.value.path == path
    return message.removeprefix(f"{path} ")


def test_a_file_without_a_format_is_refused(folder: Path) -> None:
    path = folder / "state.safetensors"
    files.write_tensors(path, {"network/x": torch.zeros(2)}, {"step": 3, "training": "of an earlier version"})
    assert refused(modelfile.load, path) == "has no format: expected ddpm-model-1 (a model)"


def test_every_format_has_a_name_for_people() -> None:
    assert set(FORMATS.values()) == set(files.KINDS)


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_reads_its_kind_and_says_what_each_other_file_is(reader: str, readers: Readers, folder: Path) -> None:
    read, own = readers[reader], FORMATS[READERS[reader]]
    read(folder / f"{READERS[reader]}.safetensors")
    for kind, other in FORMATS.items():
        if other != own:
            expected = f"has the format {other} ({files.KINDS[other]}): expected {own} ({files.KINDS[own]})"
            assert refused(read, folder / f"{kind}.safetensors") == expected


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_files_of_other_programs_and_incomplete_files(
    reader: str, readers: Readers, folder: Path
) -> None:
    read, path = readers[reader], folder / f"{READERS[reader]}.safetensors"
    whole = path.read_bytes()
    save_file({"images": torch.zeros(2, 3, 8, 8)}, path)
    assert refused(read, path) == "was not written by this project, or is damaged: it has no metadata"
    for content in (b"", b"some text\n" * 50, whole[:5], whole[:200], whole[:-1], whole + b"x"):
        path.write_bytes(content)
        assert refused(read, path).startswith("is not a complete safetensors file: ")
    path.unlink()
    assert refused(read, path) == "does not exist"
    path.mkdir()
    assert refused(read, path) == "does not exist"


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_a_file_with_one_bit_flipped(reader: str, readers: Readers, folder: Path) -> None:
    read, path = readers[reader], folder / f"{READERS[reader]}.safetensors"
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    number = next(index for index in range(whole.index(b"metadata"), begin) if whole[index : index + 1].isdigit())
    for position in (0, 7, 8, number, begin - 1, begin, (begin + len(whole)) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        problem = refused(read, path)
        assert position < begin or problem == "is damaged: its contents do not match its digest"


def test_a_bit_flipped_anywhere_in_the_header_is_an_error_or_changes_nothing(folder: Path) -> None:
    path = folder / "data.safetensors"
    whole, intact = path.read_bytes(), files.read_tensors(path)
    accepted = []
    for position in range(8 + int.from_bytes(whole[:8], "little")):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 7
        path.write_bytes(damaged)
        try:
            found = files.read_tensors(path)
        except files.TensorFileError:
            continue
        accepted.append(position)
        assert intact.metadata.items() <= found.metadata.items()
        assert all(found.tensors[name].equal(intact.tensors[name]) for name in intact.tensors)
    assert len(accepted) <= len("metadata_digest")  # earlier versions did not write this key


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the right of root to read every file."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("closed", ["model.safetensors", "."])
def test_error_names_a_file_that_may_not_be_read(folder: Path, closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(shutil.copy(folder / "model.safetensors", name))
        Path(name).chmod(0o755)
        (Path(name) / closed).chmod(0)
        with as_nobody(), pytest.raises(PermissionError) as refusal:
            modelfile.load(path)
        Path(name).chmod(0o755)
    assert refusal.value.filename == str(path)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of verified files, in a process that has verified none; every file is large."""
    monkeypatch.setattr(mapped, "LARGE", 0)
    monkeypatch.setattr(files, "_verified", files._Verified())
    path = tmp_path / "kept/verified.jsonl"
    files.remember_verified(path)
    return path


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that are computed while files are read."""
    computed: list[str] = []
    usual = files._digest
    monkeypatch.setattr(files, "_digest", lambda tensors: (computed.append("one"), usual(tensors))[1])
    return computed


def another_process(monkeypatch: pytest.MonkeyPatch, record: Path) -> None:
    monkeypatch.setattr(files, "_verified", files._Verified())
    files.remember_verified(record)


def test_a_large_file_is_verified_once_until_it_changes(
    folder: Path, record: Path, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "data.safetensors"
    for _ in range(2):
        dataset.read(path)
        another_process(monkeypatch, record)
    assert len(digests) == 1
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    for expected in (2, 3):  # a damaged file is not remembered
        assert refused(dataset.read, path) == "is damaged: its contents do not match its digest"
        assert len(digests) == expected


def test_a_large_file_that_was_just_written_is_not_verified(
    folder: Path, record: Path, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several processes would compute its digest again."""
    path = folder / "written.safetensors"
    with files.create_tensors(path, {"images": (np.uint8, (5,))}, {}) as arrays:
        arrays["images"][:] = 7
    assert len(digests) == 1  # while it was written
    another_process(monkeypatch, record)
    assert files.read_tensors(path).tensors["images"].tolist() == [7] * 5
    assert len(digests) == 1


def test_a_small_file_is_verified_each_time(
    folder: Path, record: Path, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE", 10**6)
    for count in (1, 2):
        dataset.read(folder / "data.safetensors")
        assert len(digests) == count
    assert not record.exists()


def test_a_damaged_record_only_costs_time(
    folder: Path, record: Path, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "data.safetensors"
    dataset.read(path)
    content = record.read_bytes()
    for damaged in (content[:-20], b"\xff\x00" + content[3:], b""):
        record.write_bytes(damaged)
        another_process(monkeypatch, record)
        dataset.read(path)
    assert len(digests) == 4
    record.unlink()
    record.mkdir()
    another_process(monkeypatch, record)
    dataset.read(path)
    assert len(digests) == 5


def test_a_state_of_another_network_is_refused(
    folder: Path, train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    wider = start(train_settings, network_settings.model_copy(update={"channels": 12}), diffusion_settings)
    path = folder / "state.safetensors"
    problem = refused(lambda path: checkpoint.load(path, wider.learner, LossCurve(3, CPU)), path)
    assert problem == "is the state of another network"


def test_splits_of_other_images_are_refused(folder: Path) -> None:
    images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8).numpy()
    path = folder / "test.safetensors"
    dataset.write(path, images, torch.zeros(5, dtype=torch.int64).numpy(), ["one"], (1, 8, 8), {})
    problem = refused(lambda path: dataset.read_splits(folder / "data.safetensors", path), path)
    assert problem.startswith("has images of another shape, or of other classes, than ")
