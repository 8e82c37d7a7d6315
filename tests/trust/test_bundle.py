# SPDX-License-Identifier: Apache-2.0
"""Promise 8: a bug report's zip says what helps, and nothing that is the artist's or secret."""

from __future__ import annotations

import base64
import getpass
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ordeal
from discs import draw_disc, request_for
from figures import Measured
from keytween import bundle, cli
from keytween.config import Config, load
from keytween.jobs.folder import Order
from keytween.jobs.store import JobStore, look
from keytween.keys import KeyPair
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.connection import Connection
from keytween_wire.messages import Diffusion

from . import jobs

PROMPT, NEGATIVE, NAME, LABEL = "a canary of glass", "sooty lungs", "SQ010_secret_v003.png", "Untitled Dragon"
LORA, CHECKPOINT = "/films/loras/heroine.safetensors", "/films/models/studio-house-style"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
USER, MACHINE = "m1ldred", "render-0815.studio"


@pytest.fixture
def artist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home folder of a user with a name of her own, and a token in the environment."""
    home = tmp_path / "homes" / USER
    (home / "state").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("STUDIO_API_KEY", "open sesame 1234")
    monkeypatch.setattr("platform.node", lambda: MACHINE)
    assert getpass.getuser() == USER
    return home


@pytest.fixture
def files(artist: Path) -> list[Path]:
    return [draw_disc(artist / name, centre=(30, 32)) for name in (NAME, f"b_{NAME}")]


@pytest.fixture
def listed(config: Config) -> KeyPair:
    """A further key that may come in."""
    pair = KeyPair.new()
    config.state.mkdir(parents=True)
    (config.state / "authorised_keys").write_text(f"{pair.public} {USER}'s laptop\n")
    return pair


@pytest.fixture
def client(
    listed: KeyPair,
    artist: Path,
    config: Config,
    tmp_path: Path,
    start_daemon: Callable[..., DaemonProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    ordeal.install(tmp_path / "packages", monkeypatch)
    with Client(start_daemon(replace(config, max_attempts=1)).connection) as opened:
        opened.hello()
        yield opened


def run(client: Client, files: list[Path], *, seed: int = 0) -> str:
    job_id, request, blobs = request_for(files, in_betweens=3, engine="ordeal")
    diffusion = Diffusion(CHECKPOINT, prompts=(PROMPT,), negative_prompt=NEGATIVE, loras=(LORA,))
    client.submit(job_id, replace(request, seed=seed, diffusion=diffusion), blobs, label=LABEL)
    jobs.finish(client, job_id)
    return job_id


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_nothing_that_is_secret_or_the_artists_is_anywhere_in_the_zip(
    client: Client,
    config: Config,
    listed: KeyPair,
    files: list[Path],
    artist: Path,
    tmp_path: Path,
    measured: Measured,
) -> None:
    for seed in (0, ordeal.TELL, ordeal.MISTAKE, ordeal.SEGFAULT):
        run(client, files, seed=seed)
    # What a library may print about all of it, and a log that an older version wrote.
    keys = (client.connection.client_secret, client.connection.server_key, listed.public, listed.secret)
    spilt = [PROMPT, NEGATIVE, NAME, LABEL, LORA, CHECKPOINT, TOKEN, USER, MACHINE, str(artist), *keys]
    with config.log.with_name("output.log").open("a") as output:
        output.write("".join(f"printed: {word!r}\n" for word in spilt))
    config.log.with_name("daemon.log.1").write_text("".join(f"2026 INFO {word}\n" for word in spilt))
    target = tmp_path / "report.zip"
    bundle.write(load(), target)
    found = contents(target)
    picture = files[0].read_bytes()
    middle = picture[len(picture) // 2 :][:24]
    canaries = [
        *(word.encode() for word in (*spilt, "heroine", "studio-house-style", "open sesame 1234")),
        *(path.name.encode() for path in files),
        request_for(files)[1].keyframes[0].digest.encode(),
        middle,
        middle.hex().encode(),
        base64.b64encode(middle)[:-4],
    ]
    told = {name: [c for c in canaries if c in data] for name, data in found.items()}
    assert {name: hits for name, hits in told.items() if hits} == {}
    raw = target.read_bytes()
    assert not any(canary in raw for canary in canaries)
    assert found["output.log"].count(b"printed: ") == len(spilt)
    measured("8-bundle", f"{len(canaries)} canaries in jobs, settings, log and output: none is in the zip")


def test_it_says_what_helps(client: Client, files: list[Path], tmp_path: Path) -> None:
    done, crashed = run(client, files), run(client, files, seed=ordeal.SEGFAULT)
    parts = bundle.write(load(), tmp_path / "report.zip")
    found = contents(tmp_path / "report.zip")
    assert list(found) == [part.name for part in parts]
    assert all(name in found["README.txt"].decode() for name in list(found)[1:])
    assert {f["subject"] for f in json.loads(found["doctor.json"])} >= {"Keytween", "engine flow", "daemon"}
    assert json.loads(found["versions.json"])["packages"]["numpy"]
    assert json.loads(found["settings.json"])["state"] == "[state folder]"
    assert b"Fatal Python error: Segmentation fault" in found["output.log"]
    assert b"daemon-ready" in found["daemon.log"]
    assert [json.loads(line)["event"] for line in found["daemon.log"].splitlines()].count("job-queued") == 2
    table = json.loads(found["jobs.json"])
    assert (table["states"], table["rows"]["frames"]) == ({"failed": 1, "done": 1}, 3)
    by_id: dict[str, Any] = {job["job_id"]: job for job in table["jobs"]}
    assert by_id[crashed]["error_code"] == "KT-503"
    request = by_id[done]["request"]
    assert request["keyframes"][0]["suffix"] == ".png"
    assert request["diffusion"]["steps"] == 50
    assert re.fullmatch("[0-9a-f]{12}", request["diffusion"]["prompts"][0])
    # Equal words have equal hashes, and in the next bundle they have others.
    assert request["diffusion"]["prompts"] == by_id[crashed]["request"]["diffusion"]["prompts"]
    bundle.write(load(), tmp_path / "again.zip")
    again = json.loads(contents(tmp_path / "again.zip")["jobs.json"])["jobs"][0]
    assert again["request"]["diffusion"]["prompts"] != request["diffusion"]["prompts"]


def test_the_daemon_does_not_notice_that_its_store_is_looked_at(
    client: Client, config: Config, files: list[Path]
) -> None:
    done = run(client, files)
    before = {p.name: p.read_bytes() for p in config.state.glob("jobs.sqlite*")}
    sight = look(config.state / "jobs.sqlite")
    assert sight is not None
    assert [job.job_id for job, _ in sight.jobs] == [done]
    assert {p.name: p.read_bytes() for p in config.state.glob("jobs.sqlite*")} == before
    assert jobs.state(client, run(client, files)).ended


@pytest.mark.parametrize("damage", ["none", "nonsense"])
def test_a_store_that_cannot_be_read_is_no_obstacle(config: Config, tmp_path: Path, damage: str) -> None:
    config.state.mkdir()
    if damage == "nonsense":
        (config.state / "jobs.sqlite").write_bytes(b"no store at all" * 100)
    bundle.write(config, tmp_path / "report.zip")
    said = json.loads(contents(tmp_path / "report.zip")["jobs.json"])["store"]
    assert said == {"none": "there is none", "nonsense": "KT-312"}[damage]


def test_the_command_says_what_is_inside_and_replaces_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "--bundle"]) == 0
    said = capsys.readouterr().out
    (made,) = tmp_path.glob("keytween-report-*.zip")
    assert said.startswith(f"{made.name} holds:")
    assert all(name in said for name in contents(made))
    assert "Look through it before you show it to anybody." in said
    assert made.stat().st_mode & 0o077 == 0
    before = made.read_bytes()
    assert cli.main(["doctor", "--bundle", str(made)]) == 4
    assert made.read_bytes() == before
    assert cli.main(["doctor", "--json", "--bundle", str(tmp_path / "other.zip")]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [file["name"] for file in files] == list(contents(tmp_path / "other.zip"))


def test_keys_of_the_connection_file_are_known_to_the_cover(client: Client, config: Config) -> None:
    """They are covered as words as well, should they ever look like something else."""
    connection = Connection.load(config.connection)
    (config.state / "output.log").write_text(f"x{connection.client_secret}x")
    part = next(part for part in bundle.collect(load()) if part.name == "output.log")
    assert part.data == b"x[hidden]x"


def test_a_long_history_is_covered_name_by_name(config: Config, tmp_path: Path) -> None:
    config.state.mkdir()
    picture = [draw_disc(tmp_path / f"{n}.png", centre=(30, 32)) for n in range(2)]
    with closing(JobStore(config.state / "jobs.sqlite")) as store:
        for number in range(1500):
            job_id, request, _ = request_for(picture)
            store.submit(job_id, Order(request, "flow", label=f"Dragon scene {number:05d}", created=0.0))
    names = [f"Dragon scene {number:05d}" for number in range(1500)]
    config.log.write_text(
        "".join(json.dumps({"event": "library", "said": name}) + "\n" for name in names * 3)
    )
    parts = {part.name: part.data for part in bundle.collect(config)}
    lines = [json.loads(line) for line in parts["daemon.log"].splitlines()]
    assert lines == [{"event": "library", "said": "[hidden]"}] * 4500
    table = json.loads(parts["jobs.json"])
    assert (len(table["jobs"]), table["rows"]["jobs"]) == (1000, 1500)
