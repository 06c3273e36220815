"""Where a training starts: from its state in .ckpt, from the recorded state of a shorter training, or at step 0.

Stage train also writes its last state as an output. DVC deletes the output before it runs the stage again, but an
earlier dvc.lock has its md5, under which DVC's cache has the file. Nothing here writes to the cache.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yaml import YAMLError

from ddpm import files
from ddpm.errors import UsageError
from ddpm.params import Params
from lab.experiment import dvcfile, identity
from lab.experiment.state import StateFolder, step_of


def find(saved: StateFolder, params: Params, final_state: Path, snapshots: Path) -> Path | None:
    """The state that a training continues from, None for step 0; print which.

    `final_state` and `snapshots` are the outputs of stage train. If only DVC's cache has a state, it is copied to
    `saved` first. Raises `UsageError` if the state is damaged.
    """
    source = ""
    latest = saved.latest(params.train.steps)
    if latest is None and params.runtime.resume and _restore(saved, params.train.steps, final_state, snapshots):
        latest, source = (
            saved.latest(params.train.steps),
            ", the end of a shorter training, whose state is in DVC's cache",
        )
    if latest is not None:
        start = f"continues from step {step_of(latest)}{source}"
    elif not params.runtime.resume:
        start = "starts at step 0, because runtime.resume is false"
    else:
        start = "no state is kept for this training: starts at step 0"
        if (decay := params.train.learning_rate_decay) != "constant":
            start += f"; with train.learning_rate_decay: {decay} it cannot continue one with other train.steps"
    print(f"train: {start}", file=sys.stderr, flush=True)
    return latest


@dataclass(frozen=True)
class _Recorded:
    """The md5 of outputs of one run of stage train."""

    state: str
    snapshots: str


def _restore(saved: StateFolder, steps: int, final_state: Path, snapshots: Path) -> bool:
    """Copy the longest recorded state of the same training with fewer than `steps` steps, and its snapshots.

    A state of `steps` steps is not used: DVC restores it by itself, unless the user forces the training.
    """
    if not (recorded := set(_recorded(final_state.as_posix(), snapshots.as_posix()))):
        return False
    cache = _cache()
    found: dict[int, _Recorded] = {}
    for one in recorded:
        with suppress(files.TensorFileError):  # `dvc gc` has removed it, or it is only in a remote
            metadata = files.read_metadata(_file(cache, one.state))
            if metadata.get("training") == saved.path.name and 0 < metadata["step"] < steps:
                found[metadata["step"]] = one
    for step in sorted(found, reverse=True):
        with suppress(FileNotFoundError):
            _copy(cache, found[step], step, saved)
            return True
    return False


def _recorded(state: str, snapshots: str) -> Iterator[_Recorded]:
    for text in _locks():
        digests = {}
        with suppress(YAMLError, LookupError, TypeError):  # a file that is damaged, or has conflicts of a merge
            outs = dvcfile.parsed_text(text)["stages"]["train"]["outs"]
            digests = {out["path"]: out.get("md5") for out in outs}
        if digests.get(state) and digests.get(snapshots):
            yield _Recorded(digests[state], digests[snapshots])


def _locks() -> Iterator[str]:
    """The texts of dvc.lock here and in the workspace, in the last commit and in each experiment that DVC keeps."""
    for folder in {Path.cwd(), dvcfile.ROOT}:
        with suppress(FileNotFoundError, UnicodeDecodeError):
            yield (folder / "dvc.lock").read_text(encoding="utf-8")
    with suppress(FileNotFoundError, UsageError):  # there is no git, or no repository
        for commit in ("HEAD", *(commit for _, commit in identity.dvc_experiments(dvcfile.ROOT))):
            with suppress(UsageError):  # no dvc.lock is committed
                yield identity.read(commit, "dvc.lock", dvcfile.ROOT)


def _cache() -> Path:
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    result = subprocess.run(command, cwd=dvcfile.ROOT, capture_output=True, encoding="utf-8")
    return dvcfile.ROOT / result.stdout.strip()


def _file(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _copy(cache: Path, recorded: _Recorded, step: int, saved: StateFolder) -> None:
    """Copy a state and the snapshots before it; the state last, so that it is never without its snapshots."""
    listed = json.loads(_intact(cache, recorded.snapshots).read_text(encoding="utf-8"))
    for entry in listed:
        if entry["relpath"].endswith(".safetensors"):
            shutil.copyfile(_intact(cache, entry["md5"]), saved.snapshot(int(Path(entry["relpath"]).stem)))
    saved.save(step, lambda path: _copy_whole(_intact(cache, recorded.state), path))


def _copy_whole(source: Path, to: Path) -> None:
    with files.replacing(to) as temporary:
        shutil.copyfile(source, temporary)


def _intact(cache: Path, md5: str) -> Path:
    """A file of the cache. Raises `FileNotFoundError` if it does not exist or does not have its md5."""
    path = _file(cache, md5)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != md5.removesuffix(".dir"):
            raise FileNotFoundError(f"{path} is damaged")
    return path
