# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a tween's drawings are still what its keyframes and settings ask for. A little at a time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import bpy

from . import insert, origins, poller, retiming
from .memory import Origin, Tween
from .status import SLOW
from .tween import Settings

BUDGET_S = 0.002
PIECE_BYTES = 512 << 10
"""What is hashed of a file in one go: about a millisecond."""
_digests: dict[Path, tuple[tuple[int, int], str]] = {}
"""What files held whose time or size had changed, with both as they were then."""
_reading: list[tuple[Path, tuple[int, int], BinaryIO, Any]] = []
"""The file that is being hashed, if any."""
_turn: list[int] = [0]
"""Whose turn it is among the tweens' strips."""


def look_round() -> None:
    """Looks at the next tweens for as long as a tick may take; says on a strip what has changed."""
    deadline = time.perf_counter() + BUDGET_S
    if _reading:
        _read_on()
        return
    strips = list(insert.tween_strips())
    carried: dict[str, dict[str, list[bpy.types.Strip]]] = {}
    for _ in strips:
        scene, strip = strips[_turn[0] % len(strips)]
        _turn[0] = (_turn[0] + 1) % len(strips)
        if scene.name not in carried:
            carried[scene.name] = origins.carriers(scene)
        # A scene that shows nothing of it has no reason to be drawn anew.
        if insert.mark_stale(strip, "\n".join(reasons(scene, strip, carried[scene.name]))):
            poller.STATUS.news = True
        if _reading or time.perf_counter() > deadline:
            return


def reasons(
    scene: bpy.types.Scene, strip: bpy.types.Strip, carried: dict[str, list[bpy.types.Strip]]
) -> Iterator[str]:
    """Why a strip's drawings are not what they should be, a sentence each; none when they are."""
    tween = retiming.tween_of(strip)
    yield from _keyframes(tween, carried)
    settings = Settings.of_strip(strip)
    if _text(settings.remembered()) != _text(tween.settings):
        yield "Its timing was changed: press Retime"
    kept = {name: value for name, value in tween.request.items() if name != "keyframes"}
    if _is_known(strip) and _text(retiming.asked(scene, strip, settings)) != _text(kept):
        yield "Its engine's settings were changed: press Regenerate"
    shelf, coming = poller.STATUS.shelf(insert.folder_of(strip)), poller.on_the_way(tween.job_id)
    if lacking := sum(map(len, tween.missing(shelf, coming))):
        yield f"{lacking} drawings are missing: press Retime"


def _is_known(strip: bpy.types.Strip) -> bool:
    """Whether the settings can be read: engines and presets are the daemon's to tell."""
    engine = strip.keytween_own.settings.engine
    return bool(engine) and (engine not in SLOW or poller.STATUS.link.welcome is not None)


def _keyframes(tween: Tween, carried: dict[str, list[bpy.types.Strip]]) -> Iterator[str]:
    last = len(tween.origins) - 1
    for index, origin in enumerate(tween.origins):
        source = origins.find(carried, origin)
        if source is None:
            continue
        start, length = origins.place_of(source)
        frame, hold = tween.frames[index]
        if start != tween.first + frame or (index < last and length != hold):
            yield f"Keyframe {index + 1} was moved: press Retime"
        if origins.look_of(source) != origin.look or _is_other_file(source, origin):
            yield f"Keyframe {index + 1} shows another picture: press Regenerate"


def _is_other_file(source: bpy.types.Strip, origin: Origin) -> bool:
    """Whether a keyframe's file holds something else; not before it was read to its end."""
    path = origins.file_of(source)
    now = origins.stamp(path)
    if path is None or now == (origin.size, origin.mtime):
        return False
    if now[0] < 0 or not origin.digest:
        return True
    known = _digests.get(path)
    if known is not None and known[0] == now:
        return known[1] != origin.digest
    if not _reading:
        try:
            _reading.append((path, now, path.open("rb"), hashlib.sha256()))
        except OSError:
            return True
    return False


def _read_on() -> None:
    path, stamp, stream, digest = _reading[0]
    try:
        piece = stream.read(PIECE_BYTES)
    except OSError:
        piece = b""
    digest.update(piece)
    if not piece:
        stream.close()
        _reading.clear()
        _digests[path] = (stamp, digest.hexdigest())


def _text(value: object) -> str:
    """Values as text, alike whether they were in a file or not."""
    return json.dumps(value, sort_keys=True)


def register() -> None:
    """Has the timer look round."""
    poller.CHORES.append(look_round)


def unregister() -> None:
    """Lets go of everything."""
    if look_round in poller.CHORES:
        poller.CHORES.remove(look_round)
    for _, _, stream, _ in _reading:
        stream.close()
    _reading.clear()
    _digests.clear()
