"""Stage reference: the extractor, and the features of the real images, computed once."""

from pathlib import Path

from ddpm import device
from ddpm.data import dataset
from ddpm.evaluation import extractor as extractors
from ddpm.evaluation import features as feature_files
from ddpm.evaluation.features import Reference
from ddpm.params import Params
from lab import stage
from lab.experiment import dvcfile


def reference(params: Params, train: Path, test: Path, extractor: Path, features: Path) -> None:
    """Train the classifier or fetch Inception into `extractor`; write the features and logits of both splits."""
    where = device.prepare(params.runtime)
    real, held_out = dataset.read(train), dataset.read(test)
    settings = params.evaluate
    if settings.classifier is not None:
        extractors.check_classes(real)  # before a progress bar starts
        with stage.bar("reference: classifier", settings.classifier.steps, "step") as bar:
            extractors.train_classifier(
                real, held_out, settings.classifier, settings.seed, extractor, where, bar.update
            )
    else:
        weights = dvcfile.data_root(params.runtime.data_root) / settings.weights if settings.weights else None
        extractors.fetch_inception(weights, extractor)
    extract = extractors.load(extractor, where)
    one = extract(real.images[:1], where)
    of_train, of_test = (one.repeated(len(split.images)) for split in (real, held_out))
    digests = (extract.digest, real.digest, held_out.digest)
    shaped = Reference(of_train, of_test, extract.kind, *digests, real.source)
    total = len(real.images) + len(held_out.images)
    with feature_files.create(features, shaped) as put, stage.bar("reference: features", total, "img") as bar:
        for name, split in (("train", real), ("test", held_out)):
            for first, batch in extract.batches(split.images, where):
                put(name, first, batch)
                bar.update(len(batch))


if __name__ == "__main__":
    stage.run(reference)
