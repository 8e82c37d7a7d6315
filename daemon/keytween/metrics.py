# SPDX-License-Identifier: Apache-2.0
"""Figures for Prometheus, at an address of this machine alone: jobs, frames, workers, memory, refusals."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Histogram, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from keytween_wire.errors import BadSetting

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Seconds: from `flow` on small pictures to `diffmorpher` without a GPU, its study of keyframes included."""
Respond = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """What the daemon tells at one moment; totals are since its start."""

    jobs: Mapping[str, int] = field(default_factory=dict[str, int])
    frames: int = 0
    workers: int = 0
    workers_started: int = 0
    workers_lost: int = 0
    refused_keys: int = 0
    refused_strangers: int = 0
    memory: Mapping[str, int] = field(default_factory=dict[str, int])


class Metrics(Collector):
    """Answers `GET /metrics` in a thread of its own; `tell` what there is to say from any other."""

    def __init__(self, setting: str) -> None:
        self._figures = Figures()
        registry = CollectorRegistry()
        registry.register(self)
        self._seconds = Histogram(
            "keytween_frame_seconds", "Seconds that a frame took", buckets=BUCKETS, registry=registry
        )
        host, port = parse(setting)
        self._server = _listen(host, port, _guarded(make_wsgi_app(registry)), setting)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def tell(self, figures: Mapping[str, Any], seconds: Iterable[float] = ()) -> None:
        """Takes new `Figures` by name, and how long each frame took that was made since last time."""
        self._figures = Figures(**figures)
        for each in seconds:
            self._seconds.observe(each)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)

    def collect(self) -> Iterator[Metric]:
        """The figures as metrics."""
        now = self._figures
        yield _family(GaugeMetricFamily, "jobs", "Jobs by state", "state", now.jobs)
        yield GaugeMetricFamily("keytween_queue_length", "Jobs that wait", value=now.jobs.get("queued", 0))
        yield CounterMetricFamily("keytween_frames", "Frames made", value=now.frames)
        yield GaugeMetricFamily("keytween_workers", "Worker processes", value=now.workers)
        yield CounterMetricFamily("keytween_workers_started", "Workers started", value=now.workers_started)
        yield CounterMetricFamily(
            "keytween_workers_lost", "Workers that died or hung", value=now.workers_lost
        )
        refused = {"key": now.refused_keys, "stranger": now.refused_strangers}
        yield _family(CounterMetricFamily, "refused_connections", "Peers turned away", "why", refused)
        yield _family(GaugeMetricFamily, "memory_bytes", "Resident memory", "process", now.memory)


def _family(kind: Any, name: str, text: str, label: str, values: Mapping[str, int]) -> Any:
    family = kind(f"keytween_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def parse(setting: str) -> tuple[str, int]:
    """Host and port of the setting; raises BadSetting for what is not an address of this machine alone."""
    host, _, port = setting.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        if ipaddress.ip_address(host).is_loopback and 0 <= int(port) < 1 << 16:
            return host, int(port)
    except ValueError:
        pass
    detail = "it must be an address of this machine alone with a port, such as 127.0.0.1:9115"
    raise BadSetting(name="metrics", value=setting, detail=detail)


def _listen(host: str, port: int, app: Any, setting: str) -> WSGIServer:
    class Server(WSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def server_bind(self) -> None:
            # The usual one asks the name service what this machine is called.
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()
            self.server_name, self.server_port = host, self.server_address[1]
            self.setup_environ()

    try:
        return make_server(host, port, app, server_class=Server, handler_class=_Quiet)
    except OSError as error:
        raise BadSetting(name="metrics", value=setting, detail=error.strerror or str(error)) from error


class _Quiet(WSGIRequestHandler):
    """Writes nothing to the terminal, and waits for nobody for long."""

    timeout: ClassVar[float | None] = 3.0

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _guarded(app: Any) -> Any:
    """Answers one page, to who names this machine itself: no web page gets at it by a name of its own."""

    def answer(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        host = re.sub(r":\d+$", "", environ.get("HTTP_HOST", ""))
        if not re.fullmatch(r"localhost|\[::1\]|127(\.\d{1,3}){3}", host):
            respond("403 Forbidden", [("Content-Length", "0")])
            return []
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            respond("404 Not Found", [("Content-Length", "0")])
            return []
        return app(environ, respond)

    return answer
