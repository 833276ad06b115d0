"""Models by their name on the Hub, from a small Hub of the test's own on the loopback."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.inference.hub import is_hub_name
from potstill.inference.load import load
from potstill.inference.student import StudentClassifier
from tests.http_server import serving

COMMIT = "a" * 40
REPOSITORY = "someone/tiny-student"
PREDICT = """
import sys, potstill
try:
    print(potstill.load(sys.argv[1]).predict_proba("The books is old.").tolist())
except potstill.UserError as error:
    print("UserError:", error)
"""


@dataclass
class Hub:
    """What the server has, how it misbehaves, and which files it was asked for."""

    address: str
    files: dict[str, bytes]
    stall: float = 0.0  # seconds before each part of a file
    broken: bool = False
    asked: list[str] = field(default_factory=list)

    def environment(self, cache: Path) -> dict[str, str]:
        own = {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache)}
        return os.environ | own | {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", "HF_TOKEN": ""}


@pytest.fixture
def hub(student: Path, tmp_path: Path) -> Iterator[Hub]:
    StudentClassifier(student).export_onnx(student)
    files = {file.name: file.read_bytes() for file in student.iterdir()}
    files |= {"pytorch_model.bin": b"a pickle", "modeling.py": b"raise SystemExit('ran')"}
    hub = Hub("", files)

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        path, status, headers = request.path.split("?")[0], 200, {"X-Repo-Commit": COMMIT}
        body = b""
        if path == f"/api/models/{REPOSITORY}/revision/main":
            body = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode()
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in hub.files.items()
            ]
            body = json.dumps(tree).encode()
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
            name = path.rsplit("/", 1)[1]
            hub.asked.append(name)
            body = hub.files[name]
            headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
        elif path != "/":
            status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        if hub.broken and path != "/":
            status, body, headers = 500, b"", {}
        return status, headers, body

    with serving(answer, lambda: hub.stall) as hub.address:
        yield hub


def python(script: str, *args: str, folder: Path, env: dict[str, str]) -> str:
    process = subprocess.run(
        [sys.executable, "-c", script, *args],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
        timeout=90,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_load_by_name_gives_the_model_and_only_its_safe_files(
    hub: Hub, student: Path, empty: Path, tmp_path: Path
) -> None:
    env = hub.environment(tmp_path / "cache")
    answer = python(PREDICT, REPOSITORY, folder=empty, env=env)
    assert json.loads(answer) == load(student).predict_proba("The books is old.").tolist()
    expected = {"config.json", "manifest.json", "model.onnx", "model.safetensors", "tokenizer.json"}
    assert set(hub.asked) == expected
    # Without a network the copy in the cache serves.
    offline = env | {"HF_HUB_OFFLINE": "1"}
    assert python(PREDICT, REPOSITORY, folder=empty, env=offline) == answer


def test_predict_by_name_on_the_command_line(hub: Hub, empty: Path, tmp_path: Path) -> None:
    script = "import sys; from potstill.cli import main; main(args=sys.argv[1:])"
    env = hub.environment(tmp_path / "cache")
    args = ("predict", "The books is old.", "--model_path", REPOSITORY)
    assert "The books is old." in python(script, *args, folder=empty, env=env)


def test_a_model_that_the_hub_does_not_have(hub: Hub, empty: Path, tmp_path: Path) -> None:
    env = hub.environment(tmp_path / "cache")
    assert python(PREDICT, "someone/nothing", folder=empty, env=env) == (
        "UserError: `path` someone/nothing: there is no such folder, and no such model on the "
        "Hugging Face Hub (a private one needs a token in HF_TOKEN)."
    )


def test_a_hub_that_is_broken_or_out_of_reach(hub: Hub, empty: Path, tmp_path: Path) -> None:
    env = hub.environment(tmp_path / "cache")
    nowhere = python(PREDICT, REPOSITORY, folder=empty, env=env | {"HF_HUB_OFFLINE": "1"})
    assert "it is not in the local cache, and the Hugging Face Hub can't be reached" in nowhere
    hub.broken = True
    message = python(PREDICT, REPOSITORY, folder=empty, env=env)
    assert message.startswith(f"UserError: {REPOSITORY} can't be downloaded from the Hub: ")
    assert "\n" not in message


def test_a_download_that_takes_too_long_is_given_up(hub: Hub, empty: Path, tmp_path: Path) -> None:
    hub.stall = 0.5
    script = """
import sys, potstill
from potstill.inference.hub import download_model
try:
    download_model(sys.argv[1], seconds=1.5)
except potstill.UserError as error:
    print(error)
"""
    started = time.monotonic()
    env = hub.environment(tmp_path / "cache")
    message = python(script, REPOSITORY, folder=empty, env=env)
    assert f"{REPOSITORY} was not downloaded in time: it took more than 2 s; " in message
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("owner/name", True),
        ("owner/name-1.0_x", True),
        ("name", False),
        ("a/b/c", False),
        ("/owner/name", False),
        ("./name", False),
        ("../name", False),
        ("owner/", False),
        ("runs/nothing", False),  # as the folder runs/ is there
    ],
)
def test_what_is_a_name_of_the_hub(
    path: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert is_hub_name(path) is expected
    assert is_hub_name(Path(path)) is expected


def test_a_folder_comes_first(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someone").mkdir()
    student.rename(tmp_path / "someone" / "model")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load("someone/model"), StudentClassifier)
    with pytest.raises(UserError, match="there is no such folder; train a model"):
        load("someone/mdel")
