"""What an experiment needs, before any work: parameters, bytes of memory and of disk.

Activations are those of float32 on the CPU. docs/reliability.md compares the estimates with measurements.
"""

from dataclasses import dataclass

from ddpm.params import Params
from ddpm.size import NetworkSize, classifier_size, network_size

_FLOAT, _LONG, _DOUBLE = 4, 8, 8  # bytes
_BLOCK = 16  # samples are drawn in whole blocks of this size: ddpm/sampling/blocks.py
_BATCH = 256  # images whose features or likelihood are computed at once
_LOSS = 2000  # images whose loss is computed at once, at most: ddpm/evaluation/losses.py
_INCEPTION = (23_900_000, 2048)  # parameters and features of InceptionV3
_IMAGES = {  # images of both splits, and classes; those of a folder are known after stage prepare
    "digits": (1797, 10),
    "shapes": (4000, 3),
    "mnist": (70_000, 10),
    "fashion-mnist": (70_000, 10),
    "kmnist": (70_000, 10),
    "cifar10": (60_000, 10),
}
# The share of the activations, as they are in float32, that a training at least needs in bf16, or compiled.
_CERTAIN = 0.25


@dataclass(frozen=True)
class Need:
    """What a stage needs, in bytes."""

    weights: int  # all that the number of images in a batch does not change
    batch: int  # the activations of a batch
    images: int  # in the batch
    certain: int  # of the memory: less than this cannot suffice
    outputs: int  # files that the stage writes; 0 if they are not known yet
    kept: int  # beside them: states from which the stage can continue
    lower: tuple[str, str, str]  # the key to lower if the batch, the weights or the outputs are too large

    @property
    def memory(self) -> int:
        """Bytes of memory beside those of Python and torch: of the GPU if the stage runs on one."""
        return self.weights + self.batch


@dataclass(frozen=True)
class Estimate:
    """The number of parameters of the network, and the needs of each stage."""

    parameters: int
    stages: dict[str, Need]

    @property
    def disk(self) -> int:
        """Bytes of all files of the experiment."""
        return sum(need.outputs + need.kept for need in self.stages.values())


def experiment(params: Params) -> Estimate:
    """The needs of all stages of an experiment."""
    data = params.data
    size = network_size(
        params.network,
        data.channels,
        data.image_size,
        params.diffusion.variance != "fixed",
        _IMAGES.get(data.source, (0, 0))[1],
    )
    stages = {
        "prepare": _prepare(params),
        "reference": _reference(params),
        "train": _train(params, size),
        "sample": _sample(params, size),
        "evaluate": _evaluate(params, size),
    }
    return Estimate(size.parameters, stages)


def _prepare(params: Params) -> Need:
    count, _ = _IMAGES.get(params.data.source, (0, 0))
    return Need(0, 0, 0, 0, count * (_pixels(params) + _LONG), 0, ("", "", "data.image_size"))


def _reference(params: Params) -> Need:
    count, classes = _IMAGES.get(params.data.source, (0, 2))
    batch = params.evaluate.classifier.batch_size if params.evaluate.classifier else 0
    if params.evaluate.classifier is None:
        parameters, features = _INCEPTION
        weights, activations, certain = _FLOAT * parameters, 0, _FLOAT * parameters
    else:
        size = classifier_size(params.evaluate.classifier, params.data.channels, params.data.image_size, classes)
        parameters, features = size.parameters, 4 * params.evaluate.classifier.channels
        # Weights, gradients and AdamW's moments.
        weights, activations = 4 * _FLOAT * parameters, size.saved_for(batch)
        certain = weights + activations
    outputs = _FLOAT * (parameters + count * (features + classes))
    keys = ("evaluate.classifier.batch_size", "evaluate.classifier.channels", "evaluate.classifier.channels")
    return Need(weights, activations, batch, certain, outputs, outputs, keys)


def _train(params: Params, size: NetworkSize) -> Need:
    train, runtime = params.train, params.runtime
    own = _FLOAT * size.parameters
    snapshots = len(train.snapshots) * own
    keys = ("train.batch_size or raise train.accumulate", "network.channels", "network.channels")
    if train.steps == 0:  # the weights of train.init and their copy
        return Need(2 * own, 0, 0, 2 * own, 3 * own, 2 * own, keys)
    micro, micros, gradients = train.batch_size // train.accumulate, train.accumulate, 1
    while micros % 2 == 0 and micros > 2:  # ddpm/training/gradients.py: each level of the tree holds a sum
        micros, gradients = micros // 2, gradients + 1
    saved = size.saved_for(micro)
    # On CUDA the mask of dropout has one byte for a value, not four.
    exact = train.precision == "fp32" and runtime.compile is False and not getattr(params.network, "dropout", 0)
    activations = int(saved * (1 if exact else _CERTAIN))
    learner = 4 * own  # weights, their average, and Adam's moments
    return Need(
        learner + gradients * own,
        saved,
        micro,
        # Of several processes each has only a part of the tree. With one micro-batch the backward pass releases
        # activations while it makes gradients.
        learner + (max(own, activations) if train.accumulate == 1 else own + activations),
        learner + own + snapshots,  # the state and the model
        2 * learner + snapshots,  # while a state is written, the one before is there
        keys,
    )


def _sample(params: Params, size: NetworkSize) -> Need:
    sample = params.sample
    images = min(max(sample.batch_size // _BLOCK, 1) * _BLOCK, sample.count)
    bytes_each = 2 if sample.precision == "bf16" else _FLOAT
    weights = bytes_each * size.parameters * (2 if params.train.snapshots else 1)
    batch = images * (size.alive * bytes_each // _FLOAT + 10 * _FLOAT * _pixels(params))  # and the sampler's images
    outputs = sample.count * _pixels(params) * (1 + len(params.train.snapshots))
    keys = ("sample.batch_size", "network.channels", "sample.count")
    certain = bytes_each * size.parameters + int(_CERTAIN * images * size.alive * bytes_each // _FLOAT)
    return Need(weights, batch, images, certain, outputs, outputs, keys)


def _evaluate(params: Params, size: NetworkSize) -> Need:
    images = max(min(params.sample.batch_size, _LOSS), _BATCH if params.evaluate.likelihood_images else 0)
    classifier = params.evaluate.classifier
    features = 4 * classifier.channels if classifier else _INCEPTION[1]
    weights = _FLOAT * size.parameters + 6 * _DOUBLE * features**2  # covariances of the features and their root
    kept = _FLOAT * params.sample.count * features * (1 + len(params.train.snapshots))
    keys = ("sample.batch_size", "network.channels", "sample.count")
    return Need(weights, images * size.alive, images, _FLOAT * size.parameters, 0, kept, keys)


def _pixels(params: Params) -> int:
    """The bytes of an image, uint8."""
    return params.data.channels * params.data.image_size**2
