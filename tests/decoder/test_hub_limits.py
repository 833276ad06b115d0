"""Hubs that do not answer, or not as one: what is chosen then, and how soon."""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.http_server import Answer, serving

COMMIT = "a" * 40
FIND = """
import sys, time
from potstill.data import hub as limits
from potstill.decoder import hub
limits.SILENCE = float(sys.argv[2])
hub.smollm2 = lambda: "the folder of SmolLM2"
started = time.monotonic()
try:
    found = hub.find_base_model(sys.argv[1])
    print(found.title, "|", found.reason)
except hub.UserError as error:
    print("UserError:", error)
print(time.monotonic() - started)
"""


def find(name: str, address: str, cache: Path, silence: float = 1.0) -> tuple[str, float]:
    """Return what is found or said, and after how many seconds."""
    own = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_TOKEN": ""}
    process = subprocess.run(
        [sys.executable, "-c", FIND, name, str(silence)],
        capture_output=True,
        text=True,
        env=os.environ | own | {"NO_PROXY": "*"},
        timeout=100,
    )
    assert process.returncode == 0 and not process.stderr, process.stderr
    said, seconds = process.stdout.strip().splitlines()
    return said, float(seconds)


def login_page(_: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/html"}, b"<html>please log in</html>"


def silent_api(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes] | None:
    return (200, {}, b"") if request.path == "/" else None


def garbage(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, b'{"sha": 5, "siblings": {}}'


@pytest.mark.parametrize("answer", [login_page, silent_api, garbage])
def test_auto_falls_back_and_a_name_fails_in_one_sentence(answer: Answer, tmp_path: Path) -> None:
    with serving(answer) as address:
        chosen, seconds = find("auto", address, tmp_path)
        assert chosen.startswith(
            "SmolLM2-135M | no GPT-2 in the local cache, and gpt2 can't be downloaded from the Hub"
        )
        assert seconds < 10
        said, seconds = find("gpt2", address, tmp_path)
        assert said.startswith("UserError: gpt2 can't be downloaded from the Hub: ")
        assert seconds < 10


def repository(files: dict[str, bytes]) -> Answer:
    """A Hub with one model."""

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        path, headers = request.path.split("?")[0], {"X-Repo-Commit": COMMIT}
        if path.startswith("/api/") and "/tree/" in path:
            listed = [
                {"type": "file", "path": name, "size": len(body), "oid": f"{i:040x}"}
                for i, (name, body) in enumerate(files.items())
            ]
            return 200, headers, json.dumps(listed).encode()
        if path.startswith("/api/"):
            about = {"id": "some/model", "sha": COMMIT, "siblings": []}
            return 200, headers, json.dumps(about).encode()
        name = path.partition(f"/resolve/{COMMIT}/")[2].replace("%2F", "/")
        tag = f"{list(files).index(name) if name in files else 0:040x}"
        return 200, headers | {"ETag": f'"{tag}"'}, files.get(name, b"")

    return answer


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_a_hub_that_answers_half_of_its_requests_costs_30_seconds_at_most(
    first: int, tmp_path: Path
) -> None:
    whole = repository({"config.json": b"{}", "model.safetensors": bytes(10**6)})
    requests: list[str] = []

    def half(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes] | None:
        requests.append(request.path)
        if request.path != "/" and len(requests) % 2 == first:
            return None
        return whole(request)

    with serving(half) as address:
        chosen, seconds = find("auto", address, tmp_path, silence=10)
    assert seconds < 30, (chosen, requests)


def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"x"}
    for evil in ("../../../../evil.json", "/evil.json", "a/../../../../../evil.json"):
        with serving(repository(files | {evil: b"evil"})) as address:
            find("some/model", address, tmp_path / "cache")
    assert not [file for file in tmp_path.rglob("*evil*")]


def test_a_slow_download_goes_on_while_bytes_come(tmp_path: Path) -> None:
    """Three times as long as the silence that is endured."""
    body = bytes(3 * 2**19)

    class Slow:
        def __call__(self, request: BaseHTTPRequestHandler) -> object:
            sent = repository({"config.json": b"{}", "model.safetensors": body})(request)
            assert sent is not None
            if request.command == "GET" and request.path.endswith("model.safetensors"):
                request.send_response(200)
                for key, value in (sent[1] | {"Content-Length": str(len(body))}).items():
                    request.send_header(key, value)
                request.end_headers()
                for start in range(0, len(body), 2**18):
                    time.sleep(0.5)
                    request.wfile.write(body[start : start + 2**18])
                return 200, {}, b""
            return sent

    with serving(Slow()) as address:  # type: ignore[arg-type]
        said, seconds = find("some/model", address, tmp_path, silence=1.5)
    assert said.startswith("some/model") and seconds > 2.5, said
