"""An experiment that is killed many times, in rounds, and compared with an undisturbed run after each."""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from tests.pipeline.project import Project, create
from tests.torture.killing import BETWEEN, SIGNALS, STAGES, Kill, Moment, Timing, finished, killed, timed
from tests.torture.results import differences, leftovers, results

_MOST = 24  # kills of one round
_SMALL = {
    "train__steps": 60,
    "train__snapshots": [20],
    "train__horizontal_flip": True,
    "network__dropout": 0.1,
    "sample__count": 64,
    "sample__batch_size": 16,
    "sample__steps": 8,
    "evaluate__likelihood_images": 2,
    "evaluate__classifier__steps": 40,
    "runtime__checkpoint_every": 5,
    "runtime__preview_every": 20,
    "runtime__log_every": 5,
}


@dataclass
class Outcome:
    """What was done, and the names of the results that differ from those of the undisturbed run."""

    compared: int  # results of one run
    rounds: int = 0
    kills: list[Kill] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    leftovers: int = 0  # temporary files among the results

    def text(self) -> str:
        """A table of the kills by stage and signal, and the result."""
        counts = Counter((kill.stage, kill.number) for kill in self.kills)
        lines = [f"{'kills':<16}" + "".join(f"{number.name:>9}" for number in SIGNALS) + f"{'all':>9}"]
        for stage in (*STAGES, BETWEEN):
            row = [counts[stage, number] for number in SIGNALS]
            lines.append(f"{stage:<16}" + "".join(f"{count:9}" for count in (*row, sum(row))))
        tracebacks = Counter(kill.number.name for kill in self.kills if kill.traceback)
        shown = ", ".join(f"{count} after {name}" for name, count in sorted(tracebacks.items())) or "none"
        lines += [f"tracebacks: {shown}", f"temporary files left among the results: {self.leftovers}"]
        equal = f"all {self.compared} results of each are those of an undisturbed run, with one MLflow run"
        return "\n".join([*lines, f"{len(self.kills)} kills in {self.rounds} rounds: {self._verdict(equal)}"])

    def _verdict(self, equal: str) -> str:
        return "DIFFERENT: " + ", ".join(self.differences) if self.differences else equal


def torture(folder: Path, kills: int, seed: int) -> Outcome:
    """Kill every stage of a small experiment at random moments, run it again until it has finished, and compare.

    `kills` signals reach the process group of `dvc repro`: mostly SIGKILL, also SIGTERM, SIGHUP and SIGINT. A round is
    one experiment with up to 24 of them. The projects are written to `folder`.
    """
    rng = random.Random(seed)
    original = create(folder / "a project")
    original.set(**_SMALL)
    original.commit("small")
    undisturbed = _copy(original, folder / "undisturbed")
    timings = timed(undisturbed)
    expected = results(undisturbed)
    outcome = Outcome(len(expected))
    with tqdm(total=kills, unit=" kills") as bar:
        while len(outcome.kills) < kills and not outcome.differences:
            outcome.rounds += 1
            project = _copy(original, folder / f"round {outcome.rounds}")
            for kill in _round(project, _targets(rng, min(_MOST, kills - len(outcome.kills))), timings, rng):
                outcome.kills.append(kill)
                bar.set_postfix_str(f"{kill.stage}, {kill.number.name}", refresh=False)
                bar.update()
            outcome.differences = differences(results(project), expected)
            outcome.leftovers += len(leftovers(project))
            if not outcome.differences:
                shutil.rmtree(project.path)
    return outcome


def _copy(project: Project, path: Path) -> Project:
    return Project(shutil.copytree(project.path, path))


def _targets(rng: random.Random, count: int) -> list[str]:
    """The stages that a round tries to hit, in their order: each as often as the others."""
    whole, rest = divmod(count, len(STAGES))
    return sorted([*STAGES * whole, *rng.sample(STAGES, rest)], key=STAGES.index)


def _round(project: Project, targets: Sequence[str], timings: dict[str, Timing], rng: random.Random) -> Iterator[Kill]:
    """Kill the run of a project once for each target, then let it finish; yield each kill."""
    numbers = [*SIGNALS]
    for target in targets:
        number: signal.Signals = rng.choices(numbers, [*SIGNALS.values()])[0]
        kill = killed(project, Moment.draw(rng, target, timings[target]), number)
        if kill is None:  # it has finished before the moment came
            return
        yield kill
    finished(project)
