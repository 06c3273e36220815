"""The metrics of the part `training`: those of the pipeline with a classifier, or FID and Inception Score alone."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.parts.part import Part
from ddpm.data import dataset
from ddpm.evaluation import extractor as extractors
from ddpm.evaluation import fidelity
from ddpm.evaluation.features import Features
from ddpm.params import Params
from ddpm.sampling import samples as sample_files


def measure(part: Part, params: Params, folder: Path) -> None:
    """Train the classifier, unless it is there, and compare the samples with the images."""
    train, test = (dataset.read(folder / f"{name}.safetensors") for name in ("train", "test"))
    path = folder / "extractor.safetensors"
    settings = params.evaluate
    assert settings.classifier is not None
    if not path.is_file():
        extractors.train_classifier(train, test, settings.classifier, settings.seed, path, part.device)
    extract = extractors.load(path, part.device)
    drawn, _ = sample_files.read(folder / "samples.safetensors")
    samples, real, held_out = (extract(shown, part.device) for shown in (drawn.images, train.images, test.images))
    metrics: dict[str, float | None] = {"accuracy": extract.accuracy}
    try:
        metrics |= fidelity.measure(samples, real, held_out, settings.seed).metrics
        by = "ddpm.evaluation"
    except ModuleNotFoundError as error:
        metrics |= measured_here(samples, real, held_out)
        by = f"the benchmark, because {error}"
    rounded = {name: float(f"{value:.5g}") for name, value in metrics.items() if value is not None}
    part.add("metrics", rounded | {"extractor": "classifier", "computed_by": by})


def measured_here(samples: Features, train: Features, test: Features) -> dict[str, float]:
    """FID and Inception Score of the samples and of the test images, without torch-fidelity."""
    return {
        "fid": frechet(samples.features, train.features),
        "fid_floor": frechet(test.features, train.features),
        "is": inception_score(samples.logits),
        "is_real": inception_score(train.logits[: len(samples)]),
    }


def frechet(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance between Gaussians fitted to features (N, F): |m_1 - m_2|² + tr(C_1 + C_2 - 2 (C_1 C_2)^½).

    The trace of the root is the sum of the singular values of C_1^½ C_2^½.
    """
    means, roots, traces = [], [], []
    for features in (first.double(), second.double()):
        covariance = torch.cov(features.T)
        values, vectors = torch.linalg.eigh(covariance)
        means.append(features.mean(0))
        roots.append(vectors * values.clamp_min(0).sqrt() @ vectors.T)
        traces.append(covariance.trace())
    gap = (means[0] - means[1]).square().sum()
    return float(gap + traces[0] + traces[1] - 2 * torch.linalg.svdvals(roots[0] @ roots[1]).sum())


def inception_score(logits: Tensor) -> float:
    """The mean over splits of exp E KL(p(y|x) || p(y)), in the order of the images."""
    log_p = logits.double().log_softmax(1)
    scores = []
    for part in log_p.tensor_split(min(fidelity.IS_SPLITS, len(log_p))):
        marginal = part.exp().mean(0).log()
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    return float(torch.stack(scores).mean())
