# SPDX-License-Identifier: Apache-2.0
"""Fuzzes one target under atheris; `scripts/fuzz` calls it, with the arguments that libFuzzer takes.

The target's name comes from the environment: libFuzzer starts this program again by its arguments alone.
"""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import atheris  # pyright: ignore[reportMissingImports]  (only where it is fuzzed)

OURS = ["keytween", "keytween_wire", "timeline_file"]
"""What is watched for new ways through; a target's own code is no matter."""
MOST_GROWTH = 512
"""Megabytes that reading small inputs may take, beside what the libraries have taken."""
MOST_SECONDS = 10


def main() -> None:
    """Runs until the time is up or something is found."""
    name = os.environ["KEYTWEEN_FUZZ_TARGET"]
    with atheris.instrument_imports(include=OURS):
        target = import_module(f"targets.{name}")
        bounds = import_module("bounds")
    words = Path(os.environ["KEYTWEEN_FUZZ_WORDS"])
    words.write_text(dictionary(target), "ascii")
    bounds.stay_inside()
    arguments = [*sys.argv, *limits(target), f"-dict={words}"]
    if hasattr(target, "changed"):
        atheris.Setup(arguments, target.one_input, custom_mutator=mutator(target))
    else:
        atheris.Setup(arguments, target.one_input)
    atheris.Fuzz()


def mutator(target: Any) -> Callable[[bytes, int, int], bytes]:
    """Changes an input as the target knows to, or as libFuzzer does, half of the time each."""

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            # What is no longer such a file can only be changed blindly.
            with suppress(Exception):
                return target.changed(data, rng)[:longest]
        return atheris.Mutate(data, longest)

    return mutate


def limits(target: Any) -> list[str]:
    """What libFuzzer counts as a hang, as too much memory, and as a long input."""
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [
        f"-max_len={target.LONGEST}",
        f"-timeout={MOST_SECONDS}",
        f"-rss_limit_mb={taken + MOST_GROWTH}",
    ]


def dictionary(target: Any) -> str:
    """The target's words as libFuzzer reads them: a quoted string a line, everything odd as \\xAB."""
    words = {
        "".join(chr(b) if 48 <= b < 58 or (65 <= b < 123 and b != 92) else f"\\x{b:02x}" for b in w)
        for w in target.WORDS
    }
    return "".join(f'"{word}"\n' for word in sorted(words) if word)


if __name__ == "__main__":
    main()
