# SPDX-License-Identifier: Apache-2.0
"""Promise 8: what Keytween is built on is looked after, and an audit that failed is no good one."""

from __future__ import annotations

import json
import re
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))
import audit  # noqa: E402

PILLOW = {
    "name": "pillow",
    "version": "12.0.0",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["12.1.1"], "aliases": ["CVE-2026-25990"]}],
}
FINE = {"name": "rich", "version": "15.0.0", "vulns": []}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on the service"}


def test_a_known_weakness_fails_and_is_named_with_where_it_is_mended() -> None:
    lines, code = audit.judge({"dependencies": [PILLOW, FINE]}, {})
    assert code == 1
    assert lines[0] == "pillow 12.0.0: PYSEC-2026-1, mended in 12.1.1. FAILED"
    assert lines[-1] == "2 packages audited"


def test_a_waived_weakness_passes_with_its_reason_under_any_of_its_names() -> None:
    waived = audit.read_waived("CVE-2026-25990  # no PSD is read, until January\n")
    lines, code = audit.judge({"dependencies": [PILLOW]}, waived)
    assert (code, "waived: no PSD is read" in lines[0]) == (0, True)
    lines, _ = audit.judge({"dependencies": [FINE]}, waived)
    assert lines[0] == "the waiver of CVE-2026-25990 is not needed any more"


def test_a_waiver_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        audit.read_waived("CVE-2026-25990\n")


def test_what_was_left_out_is_not_called_audited() -> None:
    assert audit.judge({"dependencies": [SKIPPED, FINE]}, {}) == (["1 packages audited, NOT numpy"], 0)
    (line,), code = audit.judge({"dependencies": [SKIPPED]}, {})
    assert (code, line.startswith("NOTHING WAS AUDITED")) == (0, True)


def test_the_waivers_that_there_are_have_reasons() -> None:
    audit.read_waived(audit.WAIVED.read_text("utf-8"))


# ---- the real program, asking a service of this test


class Osv(BaseHTTPRequestHandler):
    """Knows of one weakness in Pillow."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        self.asked.append(name)
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [], "versions": []}]
        known = {"id": "PYSEC-TEST-1", "summary": "planted", "aliases": [], "affected": affected}
        body = json.dumps({"vulns": [known]} if name == "pillow" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def test_a_weakness_in_a_lock_is_found(service: str, tmp_path: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    part = re.search(r"^pillow==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)
    assert part
    (tmp_path / "part.lock").write_text(part[0])
    try:
        report = audit.ask([tmp_path / "part.lock"], "-s", "osv", "--osv-url", service)
    except (OSError, ValueError) as error:
        pytest.skip(f"pip-audit cannot be had here: {error}"[:200])
    assert Osv.asked == ["pillow"]
    lines, code = audit.judge(report, {})
    assert code == 1
    assert "PYSEC-TEST-1" in lines[0]


# ---- the lowest versions

MENDED = {
    "pillow": "12.3",  # CVE-2026-25990, 40192, 42308 to 42311, 54058, 55798, 59197 to 59204
    "openimageio": "3.2.2",  # its wheel holds OpenEXR 3.5.2, libtiff 4.7.1, libwebp 1.5.0
    "opencv-python-headless": "4.12",  # CVE-2025-53644
    "filelock": "3.20.3",  # CVE-2025-68146, CVE-2026-22701
    "msgpack": "1.2.1",
    "diffusers": "0.42.1",  # CVE-2026-44513, GHSA-4prv-5hj7-c2xr
    "torch": "2.10",  # CVE-2025-32434, CVE-2026-24747
    "transformers": "5.0",  # CVE-2026-1839
    "ray": "2.55",  # CVE-2025-62593, CVE-2026-27482, CVE-2026-41486
    "pytest": "9.0.3",  # CVE-2025-71176
}


@pytest.mark.parametrize("name", MENDED)
def test_the_lowest_version_is_one_where_known_weaknesses_are_mended(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    floors = [found[1] for line in chain(*lists) if (found := re.fullmatch(rf"{name}>=([\d.]+)", line))]
    assert floors
    assert all(_number(floor) >= _number(MENDED[name]) for floor in floors)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
