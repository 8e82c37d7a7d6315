"""Measures how fast the flow engine is, beside a cross-fade; how good it is, `keytween bench flow` says.

Run it with `python benchmarks/flow.py`. The budget: once matched, 30 in-betweens a second at 512 x 512 and
6 at 1920 x 1080 on two cores, a further position of a pair that was matched before within 20 ms, and no
more than 2 GB for 3840 x 2160 with a matte and 16 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from keytween.bench.speed import CASES, pace


def main(say: Callable[[str], object]) -> None:
    """Prints one line per engine and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=24, help="in-betweens per pair, at least 2")
    parser.add_argument("--engine", action="append", help="an engine to time; again for more")
    options = parser.parse_args()
    heads = ("decode ms", "matching ms", "a second", "with all", "known pair ms", "peak MB")
    say(f"{'':10} {'':17}" + "".join(f"{head:>15}" for head in heads))
    for engine in options.engine or ("flow", "dissolve"):
        for case in CASES:
            found = pace(engine, case, count=max(2, options.count))
            figures = (found.decode, found.matching, found.drawing, found.overall, found.again)
            shown = "".join(f"{figure:15.1f}" for figure in figures)
            say(f"{engine:10} {case.name:17}{shown}{found.peak or float('nan'):15.0f}")


if __name__ == "__main__":
    main(print)
