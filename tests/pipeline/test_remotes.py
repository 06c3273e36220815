"""Remotes of DVC, a folder and a bucket of S3: push, clone, pull; a push that is killed; an object that is lost.

The bucket is one of moto, a server on this machine that behaves as S3.
"""

import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from tests.pipeline.project import Project, environment

pytestmark = pytest.mark.slow

KILLED_AT_THE_THIRD_FILE = """
import os, signal, sys

opened = set()

def look(event, arguments):
    if event == "open" and "/cache/files/md5/" in str(arguments[0]):
        opened.add(arguments[0])
        if len(opened) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(look)
"""


class Folder:
    """A remote in a folder."""

    variables: ClassVar[dict[str, str]] = {}

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def add(self, project: Project) -> None:
        project.run("dvc", "remote", "add", "--local", "--default", "--force", "storage", self.url)

    def objects(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def damage(self, name: str) -> None:
        path = self.path / name
        content = damaged(path.read_bytes())
        path.unlink()  # it is read-only
        path.write_bytes(content)


class Bucket:
    """A remote in a bucket of a server."""

    variables: ClassVar = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        self._request("PUT", "")

    def add(self, project: Project) -> None:
        project.run("dvc", "remote", "add", "--local", "--default", "--force", "storage", f"s3://{self.name}")
        project.run("dvc", "remote", "modify", "--local", "storage", "endpointurl", self.server)

    def objects(self) -> set[str]:
        return set(re.findall("<Key>(.*?)</Key>", self._request("GET", "").decode()))

    def remove(self, name: str) -> None:
        self._request("DELETE", name)

    def damage(self, name: str) -> None:
        self._request("PUT", name, damaged(self._request("GET", name)))

    def _request(self, method: str, path: str, content: bytes | None = None) -> bytes:
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request"}  # not verified
        request = urllib.request.Request(f"{self.server}/{self.name}/{path}", content, signed, method=method)
        with closing(urllib.request.urlopen(request, timeout=60)) as response:
            return bytes(response.read())


def damaged(content: bytes) -> bytes:
    """The content with another byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that behaves as S3."""
    for package, name in (("dvc_s3", "dvc-s3"), ("moto", "moto[server]")):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


Remote = Folder | Bucket


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """An empty remote."""
    if request.param == "folder":
        return Folder(tmp_path / "storage")
    return Bucket(request.getfixturevalue("server"), f"bucket-{time.monotonic_ns()}")


@pytest.fixture
def project(reproduced: Project, remote: Remote, tmp_path: Path) -> Project:
    """A copy of the reproduced project with the remote."""
    copy = Project(shutil.copytree(reproduced.path, tmp_path / "a project", symlinks=True))
    remote.add(copy)
    return copy


def cloned(project: Project, remote: Remote, path: Path) -> Project:
    """A clone, which has the remote and no large file."""
    project.git("clone", "-q", ".", str(path))
    clone = Project(path)
    remote.add(clone)
    assert not (clone.path / "models/model.safetensors").exists()
    return clone


def test_after_push_clone_and_pull_no_stage_runs(project: Project, remote: Remote, tmp_path: Path) -> None:
    project.run("dvc", "push", **remote.variables)
    clone = cloned(project, remote, tmp_path / "a clone")
    clone.run("dvc", "pull", **remote.variables)
    assert "Running stage" not in clone.run("dvc", "repro").stdout
    assert clone.git("status", "--porcelain") == ""
    for name in ("models/model.safetensors", "models/state.safetensors", "data/samples.safetensors"):
        assert (clone.path / name).read_bytes() == (project.path / name).read_bytes()


def test_a_second_push_completes_one_that_was_killed(project: Project, remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(KILLED_AT_THE_THIRD_FILE)
    variables = environment() | remote.variables | {"PYTHONPATH": str(tmp_path / "hook")}
    killed = subprocess.run(["dvc", "push", "--jobs", "1"], cwd=project.path, env=variables, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    partly = remote.objects()
    project.run("dvc", "push", **remote.variables)
    assert set() < partly < remote.objects()
    clone = cloned(project, remote, tmp_path / "a clone")
    clone.run("dvc", "pull", **remote.variables)
    assert "Running stage" not in clone.run("dvc", "repro").stdout


def stored(project: Project, name: str) -> str:
    """The name of the object in a remote that holds an output."""
    lock = (project.path / "dvc.lock").read_text()
    recorded = re.search(rf"path: {name}\n +hash: md5\n +md5: (..)(\w+)", lock)
    assert recorded
    return f"files/md5/{recorded[1]}/{recorded[2]}"


@pytest.mark.parametrize("harm", ["remove", "damage"])
def test_a_file_that_the_remote_has_lost_or_changed_is_named(
    harm: str, project: Project, remote: Remote, tmp_path: Path
) -> None:
    project.run("dvc", "push", **remote.variables)
    getattr(remote, harm)(stored(project, "models/model.safetensors"))
    clone = cloned(project, remote, tmp_path / "a clone")
    clone.run("dvc", "remote", "modify", "--local", "storage", "verify", "true")
    pulled = clone.run("dvc", "pull", check=False, **remote.variables)
    assert pulled.returncode != 0
    assert "models/model.safetensors" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert not (clone.path / "models/model.safetensors").exists()


def test_a_file_that_the_remote_has_lost_is_pushed_again(project: Project, remote: Remote, tmp_path: Path) -> None:
    project.run("dvc", "push", **remote.variables)
    whole = remote.objects()
    remote.remove(stored(project, "models/model.safetensors"))
    assert len(remote.objects()) == len(whole) - 1
    project.run("dvc", "push", **remote.variables)
    assert remote.objects() == whole
    clone = cloned(project, remote, tmp_path / "a clone")
    clone.run("dvc", "pull", **remote.variables)
    assert "Running stage" not in clone.run("dvc", "repro").stdout
