"""`keytween models pull` with the real hub library, against a small server that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keytween.models import KNOWN

pytest.importorskip("huggingface_hub")
FIRST, SECOND = KNOWN["sd21"]
COMMIT = "c0ffee" * 6 + "beef"
UNET = "unet/diffusion_pytorch_model.safetensors"


class Hub(ThreadingHTTPServer):
    """One repository, a folder; `cut` names a file whose connection breaks in the middle, once."""

    daemon_threads = True

    def __init__(self, repository: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repository, self.folder = repository, folder
        self.cut = ""
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def files(self) -> dict[str, bytes]:
        """What the repository holds."""
        paths = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in paths}

    def fetched(self) -> list[str]:
        """The files whose bytes were asked for."""
        place = f"/{self.repository}/resolve/{COMMIT}/"
        return [p.removeprefix(place) for m, p, _ in self.requests if m == "GET" and p.startswith(place)]


class Answer(BaseHTTPRequestHandler):
    """Answers what a download asks for: the repository, its tree, and its files, whole or in part."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The repository's description or a file."""
        self.server.requests.append(
            (self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        )
        path = self.path.partition("?")[0]
        api, plain = f"/api/models/{self.server.repository}", f"/{self.server.repository}/resolve/{COMMIT}/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            self._json(
                {"_id": "0", "id": self.server.repository, "sha": COMMIT, "siblings": self._siblings()}
            )
        elif path == f"{api}/tree/{COMMIT}":
            self._json(self._tree())
        elif path.startswith(plain) and path.removeprefix(plain) in self.server.files():
            self._file(path.removeprefix(plain))
        else:
            missing = "RevisionNotFound" if path.startswith(api) else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": missing})

    do_HEAD = do_GET

    def _siblings(self) -> list[dict[str, Any]]:
        return [
            {"rfilename": name, "size": len(data), "blobId": "0"}
            | ({"lfs": self._lfs(data, "sha256")} if name.endswith(".safetensors") else {})
            for name, data in self.server.files().items()
        ]

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            | ({"lfs": self._lfs(data, "oid")} if name.endswith(".safetensors") else {})
            for name, data in self.server.files().items()
        ]

    @staticmethod
    def _lfs(data: bytes, key: str) -> dict[str, Any]:
        return {key: hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}

    def _file(self, name: str) -> None:
        data = self.server.files()[name]
        etag = (hashlib.sha256 if name.endswith(".safetensors") else hashlib.sha1)(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(part[1]) if part else 0
        if part:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if part else 200, data[start:], headers, cut=self.server.cut == name)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub(tiny_sd: Path) -> Iterator[Hub]:
    """The mirror of a known checkpoint; its first repository is not there."""
    server = Hub(SECOND, tiny_sd)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path, hub: Hub) -> Run:
    """Runs `keytween models ... --json` as a process of its own: exit code and what it printed."""

    def call(*arguments: str, **environment: str) -> tuple[int, Any]:
        own = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hub"),
            "KEYTWEEN_STATE": str(tmp_path / "state"),
            "KEYTWEEN_CONFIG": str(tmp_path / "keytween.toml"),
            "NO_PROXY": "127.0.0.1",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "KEYTWEEN_"))}
        command = [sys.executable, "-m", "keytween.cli", "models", *arguments, "--json"]
        done = subprocess.run(
            command, env=kept | own | environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return call


def test_a_mirror_is_pulled_whole_pinned_and_can_be_loaded(run: Run, hub: Hub) -> None:
    from keytween.engines.diffmorpher.checkpoints import load

    code, pulled = run("pull", "sd21")
    assert (code, pulled["source"], pulled["revision"]) == (0, SECOND, COMMIT)
    assert run("verify") == (0, {"sd21": {}, "toon": {}})
    folder = Path(pulled["folder"])
    assert not [p for p in folder.rglob("*") if p.name.startswith(".")]
    assert not load(folder).is_xl
    assert any(path.startswith(f"/api/models/{FIRST}") for _, path, _ in hub.requests)
    assert not any("authorization" in headers for _, _, headers in hub.requests)
    assert not any("telemetry" in path for _, path, _ in hub.requests)


def test_a_damaged_file_is_fetched_again_and_no_other(run: Run, hub: Hub) -> None:
    folder = Path(run("pull", "sd21")[1]["folder"])
    data = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run("verify")[1] == {"sd21": {UNET: "damaged"}, "toon": {}}
    hub.requests.clear()
    assert run("pull", "sd21")[0] == 0
    assert (folder / UNET).read_bytes() == data
    assert [name for name in hub.fetched() if name.endswith(".safetensors")] == [UNET]


def test_after_an_interrupted_pull_whole_files_are_not_fetched_again(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    hub.cut = UNET
    code, printed = run("pull", "sd21", HF_HUB_DOWNLOAD_TIMEOUT="2")
    assert (code, printed["error"]["code"]) == (4, "KT-212")
    states = {row["name"]: row["state"] for row in run("list")[1]}
    assert states.pop("toon") == "there"
    assert set(states.values()) == {"not pulled"}
    folder = tmp_path / "state" / "models" / "sd21"
    whole = {p.relative_to(folder).as_posix() for p in folder.glob("*/*.safetensors")}
    hub.cut = ""
    hub.requests.clear()
    assert run("pull", "sd21")[0] == 0
    assert UNET in hub.fetched()
    assert whole.isdisjoint(hub.fetched())
    assert run("verify") == (0, {"sd21": {}, "toon": {}})


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"HF_HUB_OFFLINE": "1"}, (), "HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, (), f"{FIRST}: no connection; {SECOND}: no connection"),
        ({}, ("--revision", "v9"), f"{SECOND}: it has no revision v9"),
    ],
    ids=["offline", "refused", "revision"],
)
def test_what_cannot_be_fetched_is_said_plainly(
    run: Run, environment: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    code, printed = run("pull", "sd21", *arguments, **environment)
    assert (code, printed["error"]["code"]) == (4, "KT-212")
    assert said in printed["error"]["message"]
