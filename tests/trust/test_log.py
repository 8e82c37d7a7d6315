# SPDX-License-Identifier: Apache-2.0
"""Promise 8: the log tells a job's whole life, stays small, and holds nothing of an artist's work or keys."""

from __future__ import annotations

import base64
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

import ordeal
from discs import draw_disc, request_for
from figures import Measured
from keytween import cli, logs
from keytween.config import Config
from keytween.cover import HIDDEN, Cover
from keytween.log_file import MOST_ALIKE, Flood, SharedFile, files_of, trim
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.errors import PictureDamaged
from keytween_wire.messages import Diffusion, JobState, Ping

from . import jobs

PROMPT, OTHER_PROMPT = "a canary made of glass", "owl"
NAME, LABEL = "SQ010_secret_scene_v003.png", "Untitled Dragon Film"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of the log, oldest first; each must be JSON."""
    return [json.loads(line) for file in files_of(path) for line in file.read_text().splitlines()]


def written(path: Path) -> bytes:
    """Every byte of the log, and of what is beside it."""
    return b"".join(file.read_bytes() for file in (*files_of(path), path.with_name(logs.OUTPUT)))


@pytest.fixture
def client(
    config: Config,
    tmp_path: Path,
    start_daemon: Callable[..., DaemonProcess],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    ordeal.install(tmp_path / "packages", monkeypatch)
    with Client(start_daemon(replace(config, max_attempts=1)).connection) as opened:
        opened.hello()
        yield opened


@pytest.fixture
def secret_files(tmp_path: Path) -> list[Path]:
    return [draw_disc(tmp_path / name, centre=(30, 32)) for name in (NAME, f"b_{NAME}")]


def submit(client: Client, files: list[Path], *, engine: str = "ordeal", seed: int = 0) -> str:
    job_id, request, blobs = request_for(files, in_betweens=3, engine=engine)
    diffusion = Diffusion(prompts=(PROMPT, OTHER_PROMPT), negative_prompt="blurry canaries")
    client.submit(job_id, replace(request, seed=seed, diffusion=diffusion), blobs, label=LABEL)
    return job_id


# ---- what it tells


def test_a_jobs_life_can_be_followed_by_its_id_through_daemon_and_worker(
    client: Client, config: Config, secret_files: list[Path]
) -> None:
    job_id = submit(client, secret_files)
    jobs.finish(client, job_id)
    jobs.until(lambda: any(line["event"] == "job-done" for line in lines_of(config.log)))
    life = [line for line in lines_of(config.log) if line.get("job") == job_id]
    assert {(line["process"], line["event"]) for line in life} == {
        ("daemon", "job-queued"),
        ("daemon", "job-started"),
        ("worker", "job-begun"),
        ("worker", "job-left"),
        ("daemon", "job-done"),
    }
    by_event = {line["event"]: line for line in life}
    assert by_event["job-queued"]["keyframes"] == 2
    assert by_event["job-left"]["drawings"] == by_event["job-done"]["frames"] == 3
    assert by_event["job-left"]["pid"] == by_event["job-started"]["worker"]
    assert by_event["job-begun"]["device"] == by_event["job-started"]["device"] == "processor"
    times = [line["time"] for line in life if line["process"] == "daemon"]
    assert times == sorted(times)


def test_every_line_is_json_with_time_level_event_and_process(
    client: Client, config: Config, secret_files: list[Path]
) -> None:
    for seed in (0, ordeal.MISTAKE, ordeal.STARVE, ordeal.SEGFAULT):
        jobs.finish(client, submit(client, secret_files, seed=seed))
    for line in lines_of(config.log):
        assert tuple(line)[:5] == logs.FIELDS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning", "error")
        assert re.fullmatch(r"[a-z-]+", line["event"])
        assert line["pid"] > 0
    failed = next(line for line in lines_of(config.log) if line["event"] == "engine-failed")
    assert failed["level"] == "error"
    assert failed["error"]["code"] == "KT-507"
    reason = failed["error"]["because"]
    assert (reason["type"], reason["text"]) == ("RuntimeError", "a mistake")
    assert re.fullmatch(r"ordeal_engine:\d+ morph", reason["at"][-1])


def test_a_worker_that_crashes_says_where_it_was_beside_the_log(
    client: Client, config: Config, secret_files: list[Path]
) -> None:
    job_id = submit(client, secret_files, seed=ordeal.SEGFAULT)
    _, ended = jobs.finish(client, job_id)
    assert ended.state is JobState.FAILED
    output = config.log.with_name(logs.OUTPUT).read_text()
    assert "Fatal Python error: Segmentation fault" in output
    assert "ordeal_engine.py" in output
    if sys.platform != "win32":
        for file in (config.log, config.log.with_name(logs.OUTPUT)):
            assert file.stat().st_mode & 0o077 == 0, file.name
    lost = next(line for line in lines_of(config.log) if line["event"] == "worker-lost")
    assert (lost["job"], lost["reason"]) == (job_id, f"exit code {-signal.SIGSEGV}")


# ---- what it does not tell


def test_nothing_of_pictures_prompts_names_and_keys_is_in_it(
    client: Client, config: Config, secret_files: list[Path], tmp_path: Path, measured: Measured
) -> None:
    damaged = tmp_path / f"c_{NAME}"
    damaged.write_bytes(secret_files[0].read_bytes()[:-40])
    for seed in (0, ordeal.MISTAKE, ordeal.TELL, ordeal.STARVE):
        jobs.finish(client, submit(client, secret_files, seed=seed))
    _, ended = jobs.finish(client, submit(client, [damaged, secret_files[0]]))
    assert ended.error is not None
    assert ended.error.values["name"] == damaged.name  # the artist is told, the log is not
    said = written(config.log)
    blob = secret_files[0].read_bytes()
    middle = blob[len(blob) // 2 :][:24]
    canaries = [
        *(text.encode() for text in (PROMPT, "blurry canaries", NAME, LABEL, str(tmp_path))),
        client.connection.client_secret.encode(),
        middle,
        middle.hex().encode(),
        base64.b64encode(middle)[:-4],
    ]
    assert [canary for canary in canaries if canary in said] == []
    assert not re.search(rb"\bowl\b", said)
    told = [line for line in lines_of(config.log) if line["event"] == "engine-failed"]
    assert told[-1]["error"]["because"]["text"] == f"cannot draw ('{HIDDEN}', '{HIDDEN}') of {HIDDEN}"
    measured(
        "8-log",
        f"{len(canaries) + 1} canaries planted in jobs that are done, fail and starve: none in the log",
    )


def test_the_names_in_an_errors_sentence_are_left_out() -> None:
    error = PictureDamaged(name="/films/secret.png", detail="it ends early")
    assert "secret" in str(error)
    assert logs.sentence(error) == "The picture … is damaged or cut short: it ends early."


@pytest.mark.parametrize(
    "text",
    [
        "token=abcdefgh12345",
        "HF_TOKEN: hf_abcdefghijklmnopqrstuv",
        "https://somebody:word@example.org/x",
        "Authorization: Bearer abcdefgh12345678",
        '{"client_secret": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"}',
        "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6",
    ],
)
def test_what_looks_like_a_key_or_a_token_is_covered(text: str) -> None:
    covered = Cover()(text)
    assert HIDDEN in covered
    for secret in re.findall(r"[^\s\"=:/]{12,}", text):
        if secret not in ("Authorization", "client_secret"):
            assert secret not in covered


@pytest.mark.parametrize(
    "text", ["keytween.jobs.worker:214 _run", "CUDA out of memory. Tried 2.5 GiB", "a" * 64]
)
def test_what_does_not_is_left_as_it_is(text: str) -> None:
    assert Cover()(text) == text


def test_a_short_word_is_covered_where_it_stands_alone() -> None:
    assert Cover(frozenset({"owl"}))("an owl growls: 'owl'") == f"an {HIDDEN} growls: '{HIDDEN}'"


# ---- how much it is

WRITER = """
import sys, logging
from pathlib import Path
from keytween import logs
from keytween.log_file import SharedFile
handler = SharedFile(Path(sys.argv[1]), size=int(sys.argv[2]), kept=3)
handler.setFormatter(logs.JsonLines(logs.COVER, process=sys.argv[3]))
logger = logging.getLogger("keytween")
logger.addHandler(handler)
logger.setLevel(logging.INFO)
logger.propagate = False
for number in range(int(sys.argv[4])):
    logs.note("written", number=number, padding="x" * (number % 300))
"""


def test_processes_that_write_at_once_never_mix_their_lines_nor_outgrow_the_bound(
    tmp_path: Path, measured: Measured
) -> None:
    path, size, count = tmp_path / "daemon.log", 100_000, 3000
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size), f"writer-{n}", str(count)])
        for n in range(3)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = files_of(path, kept=100)
    total = sum(file.stat().st_size for file in files)
    assert len(files) == 4
    assert all(file.stat().st_size <= size for file in files)
    seen: dict[str, list[int]] = defaultdict(list)
    for line in lines_of(path):
        seen[line["process"]].append(line["number"])
    assert len(seen) >= 1
    for numbers in seen.values():
        # What is kept is a run without gaps: no line was lost or torn when a file was renamed.
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert sum(numbers[-1] == count - 1 for numbers in seen.values()) >= 1
    measured(
        "8-log-size",
        f"3 processes, {3 * count} lines: {total} bytes in 4 files of at most {size}, no line torn",
    )


def test_a_flood_of_bad_messages_is_a_few_lines(client: Client, config: Config) -> None:
    for _ in range(300):
        client._socket.send_multipart([b"nonsense", b"\xff"])  # pyright: ignore[reportPrivateUsage]
    with Client(client.connection) as other:
        other.hello()
        # The daemon hears its clients in turn: after as many pings it has heard all of that.
        for _ in range(310):
            other.ask(Ping())
    refused = [line for line in lines_of(config.log) if line["event"] == "message-refused"]
    assert len(refused) == MOST_ALIKE


def test_after_a_flood_the_log_says_how_much_was_left_out(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "daemon.log")
    handler.setFormatter(logs.JsonLines(Cover(), process="daemon"))
    handler.addFilter(Flood(most=3, every_s=0.2))

    def write() -> None:
        record = logging.LogRecord("keytween", logging.WARNING, "", 0, "flood", None, None)
        record.figures = {}
        handler.handle(record)

    for _ in range(10):
        write()
    time.sleep(0.25)
    write()
    lines = lines_of(tmp_path / "daemon.log")
    assert [line.get("left_out", 0) for line in lines] == [0, 0, 0, 7]


def test_a_process_that_was_stopped_with_the_lock_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "daemon.log"
    handler = SharedFile(path)
    with filelock.FileLock(f"{path}.lock"):
        began = time.monotonic()
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "line", None, None))
        took = time.monotonic() - began
    assert path.read_text() == "line\n"
    assert took < 2


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path)  # a folder
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "line", None, None))
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == []


def test_what_libraries_print_is_cut_down_while_they_have_it_open(tmp_path: Path) -> None:
    path = tmp_path / logs.OUTPUT
    with path.open("ab", buffering=0) as printing:
        for number in range(10_000):
            printing.write(b"%06d\n" % number)
        trim(path, size=40_000)
        printing.write(b"last\n")
    kept = path.read_bytes().splitlines()
    assert len(path.read_bytes()) < 11_000
    assert kept[-2:] == [b"009999", b"last"]


# ---- how it is read


def test_the_log_command_shows_one_jobs_lines(
    client: Client, config: Config, secret_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, other = submit(client, secret_files), submit(client, secret_files)
    jobs.finish(client, chosen)
    jobs.finish(client, other)
    jobs.until(lambda: sum(line["event"] == "job-done" for line in lines_of(config.log)) == 2)
    assert cli.main(["log", "--job", chosen[:8], "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["job"] for line in lines] == [chosen] * 5
    assert cli.main(["log", "--job", chosen[:8], "-n", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(
        r"\d{4}-\S+Z  info     daemon +job-done  job " + chosen[:8] + "  frames=3  seconds=", line
    )
    assert cli.main(["log", "--level", "error"]) == 0
    assert capsys.readouterr().out == ""


def test_the_log_command_reads_an_older_log(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    config.state.mkdir()
    config.log.write_text("2026-01-01 10:00:00,000 INFO keytween 0.0.9 listens\n")
    assert cli.main(["log"]) == 0
    assert "keytween 0.0.9 listens" in capsys.readouterr().out


def test_following_a_log_misses_nothing_when_the_file_is_renamed(config: Config) -> None:
    config.state.mkdir()
    config.log.touch()
    command = [sys.executable, "-m", "keytween.cli", "log", "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            handler = SharedFile(config.log, size=2000)
            handler.setFormatter(logs.JsonLines(Cover(), process="daemon"))
            time.sleep(1.5)
            for number in range(60):
                record = logging.LogRecord("keytween", logging.INFO, "", 0, "written", None, None)
                record.figures = {"number": number}
                handler.handle(record)
                time.sleep(0.04)
            assert following.stdout is not None
            seen = [json.loads(following.stdout.readline())["number"] for _ in range(60)]
        finally:
            following.send_signal(signal.SIGINT)
            following.wait(10)
    assert seen == list(range(60))
    assert len(files_of(config.log)) > 2
