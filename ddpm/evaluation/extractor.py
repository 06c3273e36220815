"""The extractor of features for the fidelity metrics: a classifier trained on the same images, or Inception."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm import files, mapped, rng
from ddpm.data.dataset import Dataset
from ddpm.device import compiled_for_inference
from ddpm.errors import UsageError
from ddpm.evaluation.features import Features
from ddpm.params import Classifier
from ddpm.processes import Group

INCEPTION = "inception-v3-compat"
FORMAT = "ddpm-extractor-1"

_BATCH = 256
_SHIFT = 1 / 16  # largest random translation while the classifier trains, relative to the image size


class ClassifierNetwork(nn.Module):
    """A small convolutional network: uint8 images (N, C, H, W) to features (N, 4c) and logits (N, classes).

    Three pairs of convolutions with c, 2c and 4c channels, average pooling between the pairs, and the mean over
    positions.
    """

    def __init__(self, image_channels: int, classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = image_channels
        for width in (channels, 2 * channels, 4 * channels):
            for _ in range(2):
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.AvgPool2d(2, ceil_mode=True))
        self.body = nn.Sequential(*layers[:-1])
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images.float() / 127.5 - 1).mean((2, 3))
        return features, self.head(features)


@dataclass(frozen=True)
class Extractor:
    """A frozen network from uint8 images to the features and logits of the metrics."""

    kind: Literal["classifier", "inception"]
    network: nn.Module
    forward: Callable[..., tuple[Tensor, Tensor]]  # the network, or its compiled form
    digest: str  # sha256 of its weights
    accuracy: float | None  # of the classifier, on test images

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(weights.numel() for weights in self.network.parameters())

    def compiled(self, device: torch.device, deterministic: bool) -> "Extractor":
        """The same extractor, its network compiled as `compiled_for_inference` does."""
        return replace(self, forward=compiled_for_inference(self.network, device, deterministic, _BATCH))

    def __call__(
        self, images: Tensor, device: torch.device, progress: Callable[[int], object] | None = None
    ) -> Features:
        """The features of uint8 images (N, C, H, W), on the host.

        `progress(n)` is called after each batch of n images.
        """
        parts = []
        for batch in self.batches(images, Group(device)):
            parts.append((batch.features, batch.logits))
            if progress is not None:
                progress(len(batch))
        return Features(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def batches(self, images: Tensor, group: Group, done: int = 0) -> Iterator[Features]:
        """The features batch by batch, after the first `done` images, which are whole batches.

        The processes of the group share the batches; process 0 yields all of them in order, the others none.
        """

        def finished(first: int) -> Features:
            batch = images[first : first + _BATCH]
            found = self._of(batch.to(group.device))
            if mapped.is_large(images):
                mapped.release(batch)
            return found

        return group.in_turn(range(done, len(images), _BATCH), finished)

    @torch.no_grad()
    def _of(self, batch: Tensor) -> Features:
        if self.kind == "inception" and batch.shape[1] == 1:
            batch = batch.expand(-1, 3, -1, -1)
        return Features(*(output.cpu() for output in self.forward(batch)))


def train_classifier(
    train: Dataset,
    test: Dataset,
    settings: Classifier,
    seed: int,
    path: Path,
    device: torch.device,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Train a classifier on the labelled images and write it, with its test accuracy, to `path`.

    It uses AdamW with a one-cycle learning rate and random translations. `progress(1)` is called after each step.
    Raises `UsageError` for fewer than two classes, and if the weights are not finite after the training.
    """
    check_classes(train)
    torch.manual_seed(rng.torch_seed(seed, "classifier"))
    network = ClassifierNetwork(train.image_shape[0], len(train.classes), settings.channels).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.steps)
    for step in range(settings.steps):
        draw = rng.numpy_generator(seed, "classifier", step)
        chosen = draw.integers(len(train.images), size=settings.batch_size)
        images = _shifted(mapped.gather(train.images, chosen).to(device), draw.uniform(-1, 1, 2))
        labels = train.labels[chosen].to(device)
        loss = F.cross_entropy(network(images)[1], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(1)
    if not all(torch.isfinite(values).all() for values in network.state_dict().values()):
        raise UsageError(
            f"evaluate.classifier.learning_rate = {settings.learning_rate!r}: the classifier diverged, its weights are "
            "not finite numbers; lower the learning rate"
        )
    metadata = {
        "format": FORMAT,
        "kind": "classifier",
        "image_channels": train.image_shape[0],
        "classes": len(train.classes),
        "channels": settings.channels,
        "accuracy": _accuracy(network.eval(), test, device),
    }
    files.write_tensors(path, network.state_dict(), metadata)


def check_classes(images: Dataset) -> None:
    """Raise `UsageError` if the images have fewer classes than a classifier needs."""
    if len(images.classes) < 2:
        raise UsageError(
            "evaluate.extractor: classifier needs at least two classes, and there is only one: put each class into its "
            "own folder, or set evaluate.extractor: inception (downloads 91 MB)"
        )


def fetch_inception(weights: Path | None, path: Path) -> None:
    """Write torch-fidelity's InceptionV3 to `path`, from a local file or, if `weights` is None, from a download.

    Raises `UsageError` that says where the weights come from and where to put them.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    advice = f"Download {URL_INCEPTION_V3} and set evaluate.weights to it, relative to runtime.data_root"
    try:
        if weights is None:
            state = torch.hub.load_state_dict_from_url(
                URL_INCEPTION_V3, map_location="cpu", check_hash=True, weights_only=True
            )
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        network = _inception(state)
    except FileNotFoundError:
        raise UsageError(f"evaluate.weights = {str(weights)!r}: there is no such file. {advice}") from None
    except Exception as error:  # torch raises errors of many kinds for a bad file or connection
        reason = str(error).partition("\n")[0]  # the next lines list every tensor
        raise UsageError(f"Inception's weights could not be loaded: {reason}. {advice}") from error
    files.write_tensors(path, network.state_dict(), {"format": FORMAT, "kind": "inception"})


def load(path: Path, device: torch.device) -> Extractor:
    """Load the extractor that `train_classifier` or `fetch_inception` wrote. Raises as `files.read_tensors` does."""
    file = files.read_tensors(path, FORMAT)
    metadata = file.metadata
    network: nn.Module
    if metadata["kind"] == "inception":
        network = _inception(file.tensors)
    else:
        network = ClassifierNetwork(metadata["image_channels"], metadata["classes"], metadata["channels"])
        network.load_state_dict(file.tensors)
    network.to(device).eval().requires_grad_(False)
    return Extractor(metadata["kind"], network, network, file.digest, metadata.get("accuracy"))


def _inception(state: dict[str, Any]) -> nn.Module:
    """torch-fidelity's network, which loads its weights only from a file in torch's format."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        packed = BytesIO()
        torch.save(state, packed)
        with files.naming(path):  # on a full disk torch itself raises an error without the reason
            path.write_bytes(packed.getbuffer())
        network: nn.Module = FeatureExtractorInceptionV3(INCEPTION, ["2048", "logits_unbiased"], str(path))
        return network


def _shifted(images: Tensor, shift: np.ndarray) -> Tensor:
    """Translate a batch by up to 1/16 of its size, rounded to whole pixels; the border becomes black."""
    size = images.shape[-1]
    reach = max(round(size * _SHIFT), 1)
    down, right = (round(part * reach) for part in shift.tolist())
    padded = F.pad(images, (reach, reach, reach, reach))
    return padded[:, :, reach + down : reach + down + size, reach + right : reach + right + size]


@torch.no_grad()
def _accuracy(network: nn.Module, test: Dataset, device: torch.device) -> float:
    batches = mapped.blocks(test.images, _BATCH)
    predicted = torch.cat([network(batch.to(device))[1].argmax(1).cpu() for batch in batches])
    return int((predicted == test.labels).sum()) / len(predicted)
