"""Every command of the README and of the documentation's pages does what a reader wants of it: it runs.

The commands of a page run in their order, in a tiny project of their own; `.ci/run` does that (they take minutes).
"""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.pipeline.project import Project, environment

PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
ELSEWHERE = {  # the beginning of a command, and why it does not run here
    "make ": ".ci/run itself is these",
    "ddpm import ddpm-cifar10-32/": "the download is not at hand; tests/interop imports such folders",
    "ddpm import diffusion_cifar10.ckpt": "the download is not at hand; tests/interop imports such files",
    "ddpm recipe mnist-small": "its data is not at hand; tests/pipeline/test_recipes.py runs it",
    "dvc exp run -S runtime.data_root=DIR": "the recipe's data is not at hand",
}


def blocks(page: str) -> list[list[str]]:
    """The lines of a page's blocks of commands, without comments."""
    found = re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [[line.partition("   #")[0].rstrip() for line in block.splitlines() if line.strip()] for block in found]


def elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE))


def test_all_commands_are_in_blocks_that_run() -> None:
    assert {page for page in PAGES if blocks(page)} >= {"README.md", "docs/experiments.md", "docs/results.md"}
    for page in PAGES:
        loose = re.findall(r"^ {4}(?:dvc|ddpm|git|mlflow|python|make) .*", (ROOT / page).read_text(), re.MULTILINE)
        assert not loose, f"{page}: {loose}"


def test_no_reason_is_given_for_a_command_that_is_gone() -> None:
    commands = [command for page in PAGES for block in blocks(page) for command in block]
    assert not [start for start in ELSEWHERE if not any(command.startswith(start) for command in commands)]


@pytest.fixture
def beside(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the tiny project's results, pushed to a git remote beside it."""
    project = Project(shutil.copytree(reproduced.path, tmp_path / "a project", symlinks=True))
    project.run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    project.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    project.git("push", "-q", "origin", "main")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_commands_of_a_page_run_in_their_order(beside: Project, page: str) -> None:
    for block in blocks(page):
        script = [command for command in block if not elsewhere(command) and not is_server(command)]
        beside.run("bash", "-euo", "pipefail", "-c", "\n".join(script))
        if re.search("queue start|--run-all", "\n".join(script)):
            wait_for_queue(beside)
        for command in filter(is_server, block):
            answers(beside, command)


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(beside: Project) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    beside.run(sys.executable, "-c", example)
    assert (beside.path / "sixteen.png").is_file()


def is_server(command: str) -> bool:
    return command.startswith("mlflow ui")


def wait_for_queue(project: Project) -> None:
    deadline = time.monotonic() + 600
    while re.search(r"Queued|Running", status := project.run("dvc", "queue", "status").stdout):
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert "Failed" not in status, status


def answers(project: Project, command: str) -> None:
    """A server, started at a free port, answers at its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = subprocess.Popen([*command.split(), "--port", port], cwd=project.path, env=environment())
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10).status == 200
                return
            except OSError:
                assert server.poll() is None, f"{command} has ended"
                assert time.monotonic() < deadline
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait()
