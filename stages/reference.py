"""Stage reference: the feature network, and the features of real images, computed once."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddpm import device, tensorfile
from ddpm.data import dataset
from ddpm.evaluation import extractor
from ddpm.params import Params, load


def reference(params: Params, train: Path, test: Path, network: Path, features: Path) -> None:
    """Train the classifier or fetch Inception into `network`; write both splits' features and logits."""
    where = device.prepare(params.runtime)
    splits = {"train": dataset.read(train), "test": dataset.read(test)}
    settings = params.evaluate
    if settings.classifier is not None:
        progress = partial(tqdm, desc="reference: classifier", unit="step", mininterval=1)
        extractor.train_classifier(
            splits["train"], splits["test"], settings.classifier, settings.seed, network, where, progress
        )
    else:
        weights = pipeline.data_root(params.runtime.data_root) / settings.weights if settings.weights else None
        extractor.fetch_inception(weights, network)
    extract = extractor.load(network, where)
    tensors = {}
    for name, split in splits.items():
        progress = partial(tqdm, desc=f"reference: {name} features", unit="batch", mininterval=1)
        tensors[f"{name}/features"], tensors[f"{name}/logits"] = extract(split.images, where, progress)
    metadata = {
        "extractor": extract.kind,
        "extractor_digest": extract.digest,
        "accuracy": extract.accuracy,
        "train_digest": splits["train"].digest,
        "test_digest": splits["test"].digest,
        "source": splits["train"].source,
    }
    tensorfile.write(features, tensors, metadata)


if __name__ == "__main__":
    with pipeline.running("reference"):
        reference(load(pipeline.PARAMS), *pipeline.paths("train", "test", "network", "features"))
