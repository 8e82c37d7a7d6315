# SPDX-License-Identifier: Apache-2.0
"""How attacks by chance are played: the same ones every time, unless `KEYTWEEN_CHANCE` asks for others."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FRESH = "KEYTWEEN_CHANCE"
"""Set, each run tries attacks that no run tried before; what fails is printed with how to repeat it."""


def play(*, examples: int, steps: int) -> settings:
    """So many sequences of at most so many steps, without a limit of time."""
    times = int(os.environ.get(FRESH) or 1)
    return settings(
        max_examples=examples * times,
        stateful_step_count=steps,
        deadline=None,
        derandomize=FRESH not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
