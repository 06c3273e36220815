"""What processes exchange."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.imports import ROOT
from tests.training.test_gradients import in_tree

Found = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The results of each process."""
    folder = tmp_path_factory.mktemp("exchange")
    started = [sys.executable, "-m", "lab.launch", "--standalone", f"--nproc-per-node={request.param}"]
    subprocess.run([*started, "-m", "tests.distributed.exchange", str(folder)], cwd=ROOT, check=True, timeout=120)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(request.param)]


def test_sums_are_those_of_a_binary_tree_on_every_process(found: Found) -> None:
    for index, own in enumerate(zip(*(part["own"] for part in found), strict=True)):
        expected = in_tree(torch.stack([tensor.contiguous() for tensor in own]))
        assert all(torch.equal(part["sums"][index], expected) for part in found)
    assert all(part["strides"] == [tensor.stride() for tensor in found[0]["own"]] for part in found)


def test_process_0_gets_all_results_in_order_and_the_others_none(found: Found) -> None:
    assert [float(result[0]) for result in found[0]["in_turn"]] == list(range(10))
    assert all(part["in_turn"] == [] for part in found[1:])


def test_every_process_gets_the_value_of_process_0_and_any_flag(found: Found) -> None:
    assert all(part["from_first"] == {"rank": 0} for part in found)
    assert all(part["any"] == [False, True, True] for part in found)


def test_a_process_with_other_work_than_process_0_refuses(found: Found) -> None:
    assert found[0]["refused"] == ""
    assert all(part["refused"].endswith("differ from those of process 0") for part in found[1:])


def test_one_process_is_the_first_to_fail(found: Found) -> None:
    assert sorted(part["first"] for part in found) == [False] * (len(found) - 1) + [True]
