"""The classifier and Inception as extractors."""

import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ddpm import files
from ddpm.errors import UsageError
from ddpm.evaluation import extractor, fidelity
from ddpm.processes import Group
from tests.evaluation.conftest import CPU, SETTINGS, stripes


class Rgb(TorchDataset[Tensor]):
    """Images in the form that torch-fidelity reads: each is uint8 (3, H, W)."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class Malicious:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.marker)],)


def images_for(path: Path, count: int, seed: int) -> Tensor:
    return stripes(count, files.read_metadata(path)["image_channels"], seed).images


def test_classifier_learns_separable_images(classifier_file: Path) -> None:
    extract = extractor.load(classifier_file, CPU)
    images = images_for(classifier_file, 60, 3)
    found = extract(images, CPU)
    assert found.features.shape == (60, 4 * SETTINGS.channels)
    assert extract.accuracy == 1.0
    assert torch.equal(found.logits.argmax(1), torch.arange(60) % 2)


def test_batches_after_some_images_are_those_of_all_images(
    classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractor, "_BATCH", 8)
    extract = extractor.load(classifier_file, CPU)
    images = images_for(classifier_file, 20, 3)
    counts: list[int] = []
    every = extract(images, CPU, counts.append)
    assert counts == [8, 8, 4]
    for done, sizes in ((0, [8, 8, 4]), (16, [4]), (20, [])):
        left = list(extract.batches(images, Group(CPU), done))
        assert [len(batch) for batch in left] == sizes
        assert torch.cat([every.features[:done], *(batch.features for batch in left)]).equal(every.features)
        assert torch.cat([every.logits[:done], *(batch.logits for batch in left)]).equal(every.logits)


def test_the_processes_of_a_group_share_the_batches(classifier_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Second(Group):
        """The second of two processes, which yields what it would send."""

        def in_turn(self, items: Sequence[Any], work: Callable[[Any], Any]) -> Iterator[Any]:
            yield from (work(item) for item in items[1::2])

    monkeypatch.setattr(extractor, "_BATCH", 8)
    extract = extractor.load(classifier_file, CPU)
    images = images_for(classifier_file, 20, 3)
    (own,) = extract.batches(images, Second(CPU))
    assert own.features.equal(extract(images, CPU).features[8:16])


def test_accuracy_is_measured_on_the_test_images(tmp_path: Path) -> None:
    train, test = stripes(64, 1, 1), stripes(40, 1, 2)
    test.labels[:10] = 1 - test.labels[:10]
    extractor.train_classifier(train, test, SETTINGS, 0, tmp_path / "e.safetensors", CPU)
    assert extractor.load(tmp_path / "e.safetensors", CPU).accuracy == 0.75


def test_the_same_seed_gives_the_same_bytes_and_another_seed_different_bytes(tmp_path: Path) -> None:
    train, test = stripes(32, 1, 1), stripes(10, 1, 2)
    short = SETTINGS.model_copy(update={"steps": 3})
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.randn(7)  # the state of the global generator must not matter
        path = tmp_path / f"{name}.safetensors"
        extractor.train_classifier(train, test, short, seed, path, CPU)
        written.append(path.read_bytes())
    assert written[0] == written[1] != written[2]


def test_features_do_not_depend_on_the_batch(classifier_file: Path) -> None:
    extract = extractor.load(classifier_file, CPU)
    images = images_for(classifier_file, 300, 4)  # more than one batch
    together, alone = extract(images, CPU), extract(images[290:], CPU)
    for name in ("features", "logits"):
        torch.testing.assert_close(getattr(together, name)[290:], getattr(alone, name), rtol=1e-4, atol=1e-5)


class Registered(FeatureExtractorBase):  # type: ignore[misc]  # torch-fidelity has no types
    """The classifier, registered as an extractor of torch-fidelity."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, **_: object) -> None:
        super().__init__(name, features_list)
        self.extract = extractor.load(Path(feature_extractor_weights_path), CPU)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.extract(images[:, : self.extract.network.body[0].in_channels], CPU)
        return tuple(getattr(found, name) for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


def test_a_compiled_extractor_runs_whole_batches_compiled_and_gives_the_same_features(
    classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def uncompiled(network: Callable[..., Any], **_options: object) -> Callable[..., Any]:
        return lambda x: (seen.append(len(x)), network(x))[1]

    monkeypatch.setattr(torch, "compile", uncompiled)
    monkeypatch.setattr(extractor, "_BATCH", 16)
    extract, images = extractor.load(classifier_file, CPU), images_for(classifier_file, 40, 3)
    expected, found = extract(images, CPU), extract.compiled(CPU, deterministic=True)(images, CPU)
    assert seen == [16, 16]
    assert found.features.equal(expected.features)
    assert found.logits.equal(expected.logits)


def test_torch_fidelity_computes_the_same_metrics_from_the_classifier(
    classifier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY
    monkeypatch.setitem(registry, "ddpm-classifier", Registered)
    extract = extractor.load(classifier_file, CPU)
    sets = [images_for(classifier_file, 90, 5), images_for(classifier_file, 90, 6) // 2]
    theirs = torch_fidelity.calculate_metrics(
        input1=Rgb(sets[0]),
        input2=Rgb(sets[1]),
        feature_extractor="ddpm-classifier",
        feature_extractor_weights_path=str(classifier_file),
        **dict.fromkeys(("isc", "fid", "kid", "prc", "save_cpu_ram"), True),
        **dict.fromkeys(("cuda", "verbose"), False),
        kid_subset_size=90,
        rng_seed=2020,
    )
    samples, train = (extract(images, CPU) for images in sets)
    ours = fidelity.measure(samples, train, train, seed=2020).metrics
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "is": "inception_score_mean",
        "is_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    assert theirs["frechet_inception_distance"] > 0.1
    for our_name, their_name in names.items():
        assert ours[our_name] == pytest.approx(theirs[their_name], rel=1e-3, abs=1e-5), our_name


def test_a_single_class_is_refused_with_advice(tmp_path: Path) -> None:
    train = stripes(8, 1, 1, classes=1)
    with pytest.raises(UsageError, match=r"^evaluate\.extractor: classifier needs .* two classes.* only one: "):
        extractor.train_classifier(train, train, SETTINGS, 0, tmp_path / "e.safetensors", CPU)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    files.write_tensors(path, {"w": torch.zeros(2)}, {"format": "ddpm-model-1"})
    with pytest.raises(files.TensorFileError, match=r"format ddpm-model-1 \(a model\): expected ddpm-extractor-1"):
        extractor.load(path, CPU)


def test_inception_without_space_for_its_temporary_file_names_it(inception_pth: Path, tmp_path: Path) -> None:
    extractor.fetch_inception(inception_pth, tmp_path / "e.safetensors")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            extractor.load(tmp_path / "e.safetensors", torch.device("cpu"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename.endswith("weights.pth")


def test_inception_gives_the_features_of_torch_fidelity_for_grey_and_rgb(inception_pth: Path, tmp_path: Path) -> None:
    extractor.fetch_inception(inception_pth, tmp_path / "e.safetensors")
    ours = extractor.load(tmp_path / "e.safetensors", CPU)
    theirs = FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"], str(inception_pth))
    generator = torch.Generator().manual_seed(0)
    for channels in (1, 3):
        images = torch.randint(0, 256, (2, channels, 9, 9), dtype=torch.uint8, generator=generator)
        expected = theirs(images.expand(-1, 3, -1, -1))
        assert not torch.allclose(expected[0][0], expected[0][1])
        found = ours(images, CPU)
        torch.testing.assert_close((found.features, found.logits), expected)
    assert (ours.kind, ours.accuracy) == ("inception", None)


def broken(path: Path) -> None:
    path.write_bytes(b"not weights")


def incomplete(path: Path) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, path)


def malicious(path: Path) -> None:
    torch.save({"fc.bias": Malicious(path.with_name("executed"))}, path)


def folder(path: Path) -> None:
    path.mkdir()


def absent(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize("make", [absent, broken, incomplete, malicious, folder])
def test_bad_weights_are_refused_with_the_download_url_and_never_executed(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "weights.pth")
    with pytest.raises(UsageError) as raised:
        extractor.fetch_inception(tmp_path / "weights.pth", tmp_path / "e.safetensors")
    assert URL_INCEPTION_V3 in str(raised.value)
    assert "evaluate.weights" in str(raised.value)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "e.safetensors").exists()


def test_the_malicious_file_is_executed_if_pickle_is_allowed(tmp_path: Path) -> None:
    malicious(tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_error_names_absent_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluate\.weights = '.*mine\.pth': there is no such file"):
        extractor.fetch_inception(tmp_path / "mine.pth", tmp_path / "e.safetensors")


def test_error_of_a_failed_download_names_the_url_and_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match="no route to host") as raised:
        extractor.fetch_inception(None, tmp_path / "e.safetensors")
    assert f"Download {URL_INCEPTION_V3} and set evaluate.weights" in str(raised.value)


def test_a_download_is_checked_against_its_hash(
    inception_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {}

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        arguments.update(options, url=url)
        return dict(torch.load(inception_pth, weights_only=True))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    extractor.fetch_inception(None, tmp_path / "e.safetensors")
    assert arguments["url"] == URL_INCEPTION_V3
    assert arguments["check_hash"] is True
    assert files.read_metadata(tmp_path / "e.safetensors")["kind"] == "inception"
