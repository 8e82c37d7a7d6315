# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md has a row for all that tests and commands measure, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTED = re.compile(r"""(?:measured|note)\(\s*f?"(\d+-[\w{}-]+)"|"promise": "(\d+-[\w-]+)\"""")
ROW = re.compile(r"^\| `(\d+-[\w-]+)` \| \[([^]]+)\]\(\.\./([^)]+)\) \| (.+) \|$", re.MULTILINE)


def noted() -> dict[re.Pattern[str], str]:
    """Each key that code notes a figure under, one for each of a test's cases, and the file that does."""
    files = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    return {
        re.compile(re.sub(r"\{\w+\}", r"\\w+", next(filter(None, found.groups())))): (
            path.relative_to(ROOT).as_posix()
        )
        for path in files
        if path.name != Path(__file__).name
        for found in NOTED.finditer(path.read_text("utf-8"))
    }


def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall((ROOT / "docs" / "reliability.md").read_text("utf-8"))


def test_every_figure_has_a_row() -> None:
    keys = [key for key, *_ in rows()]
    assert [noting.pattern for noting in noted() if not any(map(noting.fullmatch, keys))] == []
    assert len(keys) == len(set(keys))


def test_every_row_names_the_test_that_measures_it() -> None:
    files = noted()
    for key, name, path, figure in rows():
        assert path in [file for noting, file in files.items() if noting.fullmatch(key)], key
        assert figure.strip()
        if "/test_" in path:
            assert f"def test_{name.replace(' ', '_')}(" in (ROOT / path).read_text("utf-8"), (path, name)


def test_every_promise_has_a_row() -> None:
    assert {int(key.split("-")[0]) for key, *_ in rows()} == set(range(1, 11))
