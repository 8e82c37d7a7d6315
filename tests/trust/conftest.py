# SPDX-License-Identifier: Apache-2.0
"""What the attacks share: a daemon's memory, and where measured figures are noted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Measured = Callable[[str, str], None]
FIGURES = "KEYTWEEN_FIGURES"
"""Names a file; each line of it is what one attack measured. `scripts/reliability` reads it."""


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Notes what was measured, under the promise's key and for its row in docs/reliability.md."""

    def note(promise: str, figure: str) -> None:
        print(f"\n{promise}: {figure}")
        if path := os.environ.get(FIGURES):
            line = {"promise": promise, "figure": figure, "test": request.node.name}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return note
