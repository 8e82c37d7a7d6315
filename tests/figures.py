# SPDX-License-Identifier: Apache-2.0
"""Where tests note what they measured, for the table in docs/reliability.md."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Measured = Callable[[str, str], None]
FIGURES = os.environ.get("KEYTWEEN_FIGURES")
"""A file; each line of it is what one attack measured. `scripts/reliability` reads it.

Looked up at once: the tests' settings are their own, and hide the variable.
"""


def note(promise: str, figure: str, test: str) -> None:
    """Notes a figure under a promise's key, such as `6-slow`, with the test or command that found it."""
    print(f"\n{promise}: {figure}")
    if FIGURES:
        line = {"promise": promise, "figure": figure, "test": test}
        with Path(FIGURES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Notes what this test measured, under its promise's key, for its row in docs/reliability.md."""
    test = request.node.nodeid.split("[")[0]
    return lambda promise, figure: note(promise, figure, test)
