"""How long shots will take: from what shots of the same batch took, otherwise from what was measured once."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from keytween.shots.planning import Planned
from keytween.shots.records import DONE, Record

_MEASURED = {"flow": (2.4, 0.12), "dissolve": (0.0, 0.12)}
"""Seconds for each pair of keyframes, and for each drawing of a megapixel, on one core (`benchmarks/`)."""
_SMALLEST = 0.05
"""Megapixels below which a drawing costs no less."""


def plain(planned: Planned) -> float | None:
    """Seconds on one core as measured once; None for an engine of which nothing is known."""
    rates = _MEASURED.get(planned.request.engine)
    if rates is None:
        return None
    per_pair, per_drawing = rates
    size = max(_SMALLEST, planned.megapixels)
    return per_pair * (len(planned.paths) - 1) + per_drawing * size * planned.request.total


def rates(records: Iterable[Record]) -> dict[str, float]:
    """By engine, the median seconds for a drawing of a megapixel in shots that were made at one go."""
    found: dict[str, list[float]] = {}
    for record in records:
        drawn = record.get("drawn", 0)
        if record.get("state") == DONE and drawn and drawn == record.get("drawings"):
            work = drawn * max(_SMALLEST, record.get("megapixels", 0.0))
            found.setdefault(record["engine"], []).append(record["seconds"] / work)
    return {engine: statistics.median(each) for engine, each in found.items()}


def seconds(planned: Planned, known: Mapping[str, float]) -> float | None:
    """What the shot will take, as far as anything says; `known` are this batch's own rates."""
    rate = known.get(planned.request.engine)
    if rate is None:
        return plain(planned)
    return rate * max(_SMALLEST, planned.megapixels) * planned.request.total
