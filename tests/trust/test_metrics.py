# SPDX-License-Identifier: Apache-2.0
"""Promise 8: metrics are off unless asked for, stay on this machine, and say figures and no names."""

from __future__ import annotations

import http.client
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families

import ordeal
from discs import request_for
from keytween.config import Config
from keytween.keys import KeyPair
from keytween.metrics import Metrics, parse
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.errors import BadSetting, DaemonWouldNotStart, KeyRefused

from . import jobs


def listening(pid: int) -> set[str]:
    """The addresses at which a process listens."""
    found = psutil.Process(pid).net_connections(kind="inet")
    return {f"{c.laddr.ip}:{c.laddr.port}" for c in found if c.status == psutil.CONN_LISTEN}


def get(
    port: int, path: str = "/metrics", *, host: str = "localhost", method: str = "GET"
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(port: int) -> dict[str, float]:
    """Every sample by name and labels."""
    status, text = get(port)
    assert status == 200
    return {
        s.name + "".join(f"/{v}" for v in s.labels.values()): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def free_port() -> int:
    metrics = Metrics("127.0.0.1:0")
    port = metrics.port
    metrics.close()
    return port


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not show everybody's sockets")
def test_they_are_off_by_default(daemon: DaemonProcess) -> None:
    assert listening(daemon.process.pid) == {daemon.connection.endpoint.removeprefix("tcp://")}


def test_a_scrape_tells_jobs_frames_workers_memory_and_refusals(
    config: Config,
    start_daemon: Callable[..., DaemonProcess],
    tmp_path: Path,
    keyframe_files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ordeal.install(tmp_path / "packages", monkeypatch)
    port = free_port()
    daemon = start_daemon(replace(config, metrics=f"127.0.0.1:{port}", max_attempts=1))
    with Client(daemon.connection) as client:
        client.hello()
        jobs.finish(client, jobs.submit(client, keyframe_files, engine="ordeal", in_betweens=7))
        jobs.finish(client, jobs.submit(client, keyframe_files, engine="ordeal", seed=ordeal.SEGFAULT))
        job_id, request, blobs = request_for(keyframe_files, engine="ordeal", in_betweens=1)
        client.submit(job_id, replace(request, seed=ordeal.HANG), blobs, label="Untitled Dragon")
        waiting = jobs.submit(client, keyframe_files, engine="ordeal")
        key = KeyPair.new()
        stranger = replace(daemon.connection, client_key=key.public, client_secret=key.secret)
        with pytest.raises(KeyRefused), Client(stranger) as knocking:
            knocking.hello(timeout=3)
        jobs.until(lambda: scrape(port)["keytween_jobs/running"] == 1)
        time.sleep(1.2)
        seen = scrape(port)
        _, text = get(port)
    assert {s: seen[f"keytween_jobs/{s}"] for s in ("queued", "running", "done", "failed", "cancelled")} == {
        "queued": 1,
        "running": 1,
        "done": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert seen["keytween_queue_length"] == 1
    assert seen["keytween_frames_total"] == seen["keytween_frame_seconds_count"] == 7
    assert 0 < seen["keytween_frame_seconds_sum"] < 60
    assert (seen["keytween_workers"], seen["keytween_workers_started_total"]) == (1, 2)
    assert seen["keytween_workers_lost_total"] == 1
    assert seen["keytween_memory_bytes/daemon"] > 10e6
    assert seen["keytween_memory_bytes/workers"] > 10e6
    assert seen["keytween_refused_connections_total/key"] > 0
    for name in (waiting, job_id, keyframe_files[0].name, "Dragon", str(tmp_path)):
        assert name not in text
    assert listening(daemon.process.pid) == {
        f"127.0.0.1:{port}",
        daemon.connection.endpoint.removeprefix("tcp://"),
    }
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0


@pytest.mark.parametrize(
    "setting",
    [
        "0.0.0.0:9115",
        "192.168.1.5:9115",
        "[::]:9115",
        ":9115",
        "9115",
        "example.org:9115",
        "127.0.0.1:99999",
        "127.0.0.1",
    ],
)
def test_an_address_that_others_could_reach_is_refused(setting: str) -> None:
    with pytest.raises(BadSetting, match="this machine alone"):
        parse(setting)


def test_a_daemon_with_such_an_address_does_not_start(
    config: Config, start_daemon: Callable[..., DaemonProcess]
) -> None:
    with pytest.raises(DaemonWouldNotStart, match="KT-205"):
        start_daemon(replace(config, metrics="0.0.0.0:9115"))


def test_an_address_that_is_taken_is_said_plainly() -> None:
    first = Metrics("127.0.0.1:0")
    with pytest.raises(BadSetting, match="in use"):
        Metrics(f"127.0.0.1:{first.port}")
    first.close()


def test_no_other_page_no_other_name_and_no_other_method_is_answered() -> None:
    metrics = Metrics("127.0.0.1:0")
    try:
        assert get(metrics.port, host="127.0.0.1")[0] == 200
        assert get(metrics.port, "/")[0] == 404
        assert get(metrics.port, method="POST")[0] == 404
        assert get(metrics.port, host="attacker.example")[0] == 403
        assert get(metrics.port, host="127.0.0.1.attacker.example")[0] == 403
    finally:
        metrics.close()
