"""Inception for the tests: the real architecture with random weights."""

from pathlib import Path

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as inception


def write_random_weights(path: Path) -> None:
    """Write a weights file of InceptionV3 in torch-fidelity's format, with random weights."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # the constructor loads weights; keep the initial ones
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # keeps the activations from vanishing or exploding
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
