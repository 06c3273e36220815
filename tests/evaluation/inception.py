"""Inception for the tests: of the real shape, and untrained."""

from pathlib import Path

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as inception


def write_random_weights(path: Path) -> None:
    """A file as torch-fidelity publishes its InceptionV3, but of random weights."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:  # its constructor insists on weights; here it keeps the initial ones
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):  # so that activations neither vanish nor explode
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
