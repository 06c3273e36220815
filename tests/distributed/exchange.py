"""The work of each process in test_processes.py: exchange tensors and objects, and write what came back.

python -m lab.launch --standalone --nproc-per-node=4 exchange.py FOLDER
"""

import sys
from pathlib import Path

import torch

from ddpm import params, processes
from ddpm.errors import UsageError
from tests.imports import ROOT

group = processes.join(params.load(ROOT / "params.yaml").runtime.model_copy(update={"threads": 1, "device": "cpu"}))
generator = torch.Generator().manual_seed(group.rank)
# Several buckets; sizes that no number of processes divides; a tensor whose memory is not in the order of its indices.
processes._BUCKET = 1000
shapes = [(), (3,), (7, 11, 5, 3), (997,), (1,)]
tensors = [torch.randn(shape, generator=generator) for shape in shapes]
tensors[2] = tensors[2].to(memory_format=torch.channels_last)
own = [tensor.clone() for tensor in tensors]
group.sum(tensors)
group.agree("the same work")
try:
    group.agree(f"the work of {group.rank}")
    refused = ""
except UsageError as error:
    refused = str(error)
found = {
    "refused": refused,
    "own": own,
    "sums": tensors,
    "strides": [tensor.stride() for tensor in tensors],
    "in_turn": list(group.in_turn(range(10), lambda item: torch.full((2,), float(item)))),
    "from_first": group.from_first({"rank": group.rank}),
    "any": [group.any(flag) for flag in (False, group.rank == 1, True)],
    "first": processes.first_to_fail(RuntimeError()),
}
torch.save(found, Path(sys.argv[1]) / f"{group.rank}.pt")
processes.leave()
