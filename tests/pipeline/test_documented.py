"""Every command of README.md and of the pages in docs/ runs.

The commands of a page run in order, in a tiny project for each page. They take minutes, so only `.ci/run` runs them.
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
ELSEWHERE = {  # the first words of a command, and the reason why it does not run here
    "make ": ".ci/run runs it",
    "ddpm import ddpm-cifar10-32/": "the download is not available; tests/interop imports such folders",
    "ddpm import diffusion_cifar10.ckpt": "the download is not available; tests/interop imports such files",
    "ddpm recipe shapes": "it takes minutes; tests/pipeline/test_recipes.py runs the recipe",
    "ddpm recipe mnist-small": "its data is not available; tests/pipeline/test_recipes.py runs the recipe",
    "dvc exp run -S runtime.data_root=DIR": "the recipe's data is not available",
}


def blocks(page: str) -> list[list[str]]:
    """The lines of each bash block of a page, without comments."""
    found = re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [[line.partition("   #")[0].rstrip() for line in block.splitlines() if line.strip()] for block in found]


def elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE))


def test_all_commands_are_in_bash_blocks() -> None:
    assert {page for page in PAGES if blocks(page)} >= {"README.md", "docs/experiments.md", "docs/results.md"}
    for page in PAGES:
        loose = re.findall(r"^ {4}(?:dvc|ddpm|git|mlflow|python|make) .*", (ROOT / page).read_text(), re.MULTILINE)
        assert not loose, f"{page}: {loose}"


def test_every_command_that_runs_elsewhere_is_documented() -> None:
    commands = [command for page in PAGES for block in blocks(page) for command in block]
    assert not [start for start in ELSEWHERE if not any(command.startswith(start) for command in commands)]


@pytest.fixture
def beside(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of the reproduced project, pushed to a git remote in the same folder."""
    project = Project(shutil.copytree(reproduced.path, tmp_path / "a project", symlinks=True))
    (project.path / "mlflow.db").unlink()  # as docs/experiments.md advises for a repository that was copied
    project.run("ddpm", "publish")
    project.run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    project.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    project.git("push", "-q", "origin", "main")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_commands_of_a_page_run_in_order(beside: Project, page: str) -> None:
    for block in blocks(page):
        script = [command for command in block if not elsewhere(command) and not is_server(command)]
        beside.run("bash", "-euo", "pipefail", "-c", "\n".join(script))
        if re.search("queue start|--run-all", "\n".join(script)):
            wait_for_queue(beside)
        for command in filter(is_server, block):
            check_server(beside, command)


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(beside: Project) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    beside.run(sys.executable, "-c", example)
    assert (beside.path / "build/sixteen.png").is_file()


def is_server(command: str) -> bool:
    return command.startswith("ddpm ui")


def wait_for_queue(project: Project) -> None:
    deadline = time.monotonic() + 600
    while re.search(r"Queued|Running", status := project.run("dvc", "queue", "status").stdout):
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert "Failed" not in status, status


def check_server(project: Project, command: str) -> None:
    """Start a server on a free port and wait until it responds."""
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
