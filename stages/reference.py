"""Stage reference: the extractor, and the features of the real images, computed once."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ddpm import processes
from ddpm.data import dataset
from ddpm.evaluation import extractor as extractors
from ddpm.evaluation import features as feature_files
from ddpm.evaluation import reliability
from ddpm.evaluation.features import Features, Reference
from ddpm.params import Params
from lab import kept, stage
from lab.experiment import dvcfile


def reference(params: Params, train: Path, test: Path, extractor: Path, features: Path) -> None:
    """Train the classifier or fetch Inception into `extractor`; write the features and logits of both splits."""
    group, settings = processes.join(params.runtime), params.evaluate
    real, held_out = dataset.read_splits(train, test)
    images = {"train": real.images, "test": held_out.images}
    weights = dvcfile.data_root(params.runtime.data_root) / settings.weights if settings.weights else None
    if settings.classifier is not None:
        extractors.check_classes(real)  # before a progress bar starts

    def make(path: Path) -> None:
        if settings.classifier is None:
            extractors.fetch_inception(weights, path)
            return
        with stage.bar("reference: classifier", settings.classifier.steps, "step") as bar:
            extractors.train_classifier(
                real, held_out, settings.classifier, settings.seed, path, group.device, bar.update
            )

    with kept.work("reference", params.runtime, group, [train, test, *([weights] if weights else [])]) as work:
        work.file(extractor, make)
        extract = extractors.load(extractor, group.device)
        count, runtime = sum(map(len, images.values())), params.runtime
        if stage.compiles("reference", runtime, group.device, extract.parameters, count):
            extract = extract.compiled(group.device, runtime.deterministic)

        def features_of(split: str, done: int) -> Iterator[dict[str, Tensor]]:
            return map(vars, extract.batches(images[split], group, done))

        rows = work.rows("reference: features", {split: len(images[split]) for split in images}, features_of)
        if rows is None:
            return
        of_train, of_test = (Features(**rows[split]) for split in images)
        key = "evaluate.weights" if settings.classifier is None else "evaluate.classifier.learning_rate"
        for found in (of_train, of_test):
            reliability.check_finite(found, f"change {key}")
        for warning in reliability.inaccuracy(extract.accuracy, len(real.classes)):
            stage.say(f"reference: {warning}")
        digests = (extract.digest, real.digest, held_out.digest)
        feature_files.write(features, Reference(of_train, of_test, extract.kind, *digests, real.source))


if __name__ == "__main__":
    stage.run(reference)
