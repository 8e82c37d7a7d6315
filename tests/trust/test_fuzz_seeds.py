# SPDX-License-Identifier: Apache-2.0
"""Promise 9: hostile bytes. Every seed and finding of the fuzzers, and changes of each, on each run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from figures import Measured
from replayed import FUZZ, ROOT, replay

TARGETS = sorted(path.name for path in (FUZZ / "seeds").iterdir())
CHANGES = 15
"""Of each seed; they are the same ones every time."""


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_and_no_finding_does_any_harm(target: str, tmp_path: Path, measured: Measured) -> None:
    said = replay(target, CHANGES, tmp_path)
    assert list(tmp_path.iterdir()) == []
    measured(f"9-seeds-{target}", f"{said}, nothing found")


def test_what_is_written_outside_is_a_finding(tmp_path: Path) -> None:
    code = "import bounds, pathlib; bounds.stay_inside(); pathlib.Path('astray').write_text('')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (FUZZ, ROOT / "shared", ROOT / "daemon")))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Escaped" in done.stderr
    assert not (tmp_path / "astray").exists()


def test_the_page_has_a_row_for_every_target() -> None:
    page = (ROOT / "docs" / "fuzzing.md").read_text("utf-8")
    assert [target for target in TARGETS if f"| `{target}` |" not in page] == []
