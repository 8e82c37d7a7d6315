# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyframes' own strips: hidden where a tween above shows the same pictures, and shown again.

A soft edge that lies over itself is denser than the keyframe's. A strip that was hidden here carries the ids
of the tweens that it is hidden for, and is hidden only while one of them covers it: no picture goes missing.
"""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import bpy

from . import insert, origins, poller, vse_compat
from .capture import inside, with_effects
from .memory import Tween

HIDDEN = "keytween_hidden"
"""The ids of the tweens that a keyframe's strip is hidden for. A strip without it is the artist's to hide."""
UNCOVERED = "keytween_uncovered"
"""Set while such a strip is shown all the same, because none of its tweens covers it."""
BUDGET_S = 0.001
HALF_STEP = 0.5 / 65535
"""A matte that is as near to 0 or 1 is there in every format that is written."""
PIECE_BYTES = 256
"""What is compared of a matte in one go. Most of it is alike, and only pieces that differ are looked at."""
WITHOUT_MATTE = {".jpg", ".jpeg"}
HARD_KINDS = {b"\x00", b"\x02"}
"""The kinds of PNG whose matte is one colour at most: grey and RGB."""
_turn: list[int] = [0]
"""Whose turn it is among the hidden strips."""


# ---- soft mattes


def is_soft(path: Path) -> bool:
    """Whether a picture's matte is anywhere between 0 and 1; that of one that cannot be read is not."""
    if not _may_be_soft(path):
        return False
    try:
        image = bpy.data.images.load(str(path), check_existing=False)
    except RuntimeError:
        return False
    try:
        # Not every Blender comes with numpy.
        numbers = array("f", [0.0]) * len(image.pixels)
        image.pixels.foreach_get(numbers)
        matte = numbers[3::4].tobytes() if image.channels == 4 else b""
    finally:
        bpy.data.images.remove(image)
    pieces = {matte[at : at + PIECE_BYTES] for at in range(0, len(matte), PIECE_BYTES)}
    return any(HALF_STEP < value < 1 - HALF_STEP for piece in pieces for value in array("f", piece))


def _may_be_soft(path: Path) -> bool:
    """Whether it is worth decoding the whole picture to see."""
    if path.suffix.lower() in WITHOUT_MATTE:
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(26)
    except OSError:
        return False
    return not (head.startswith(b"\x89PNG") and head[25:26] in HARD_KINDS)


# ---- hide and show


def sources(scene: bpy.types.Scene, strip: bpy.types.Strip) -> list[bpy.types.Strip]:
    """The strips of a tween's keyframes, as far as they are still there."""
    wanted = Tween.from_json(strip[insert.TWEEN]).origins
    # Panels ask at every draw, and looking a name up is much quicker than looking through all strips.
    named = [scene.sequence_editor.strips_all.get(origin.name) for origin in wanted]
    pairs = zip(named, wanted, strict=True)
    if all(source is not None and source.get(origins.KEY) == origin.key for source, origin in pairs):
        return named
    carried = origins.carriers(scene)
    found = (origins.find(carried, origin) for origin in wanted)
    return [source for source in found if source is not None]


def all_hidden(scene: bpy.types.Scene, strip: bpy.types.Strip) -> bool:
    """Whether a tween's keyframes are hidden, by whomever, or would be if it covered them."""
    found = sources(scene, strip)
    return bool(found) and all(source.mute or HIDDEN in source for source in found)


def settle(scene: bpy.types.Scene, strip: bpy.types.Strip, before: Tween | None = None) -> None:
    """Hides a tween's keyframes with soft mattes, if its settings say so.

    Only those that are new to it or show another picture than `before`: about the others the artist decides.
    """
    tween, folder = Tween.from_json(strip[insert.TWEEN]), insert.folder_of(strip)
    known = _pictures(before) if before else []
    carried = origins.carriers(scene)
    for origin, name, picture in zip(tween.origins, tween.keys, _pictures(tween), strict=False):
        source = origins.find(carried, origin)
        if source is None or picture in known or not strip.keytween_own.settings.hide_keyframes:
            continue
        if not _is_heard(source) and is_soft(folder / name):
            hide(scene, source, tween.job_id)
    follow(scene)


def _pictures(tween: Tween) -> list[tuple[str, str]]:
    """Whose picture each keyframe is, and which."""
    pairs = zip(tween.origins, tween.request["keyframes"], strict=False)
    return [(origin.key, image["digest"]) for origin, image in pairs]


def _is_heard(strip: bpy.types.Strip) -> bool:
    """Whether a meta strip has sound in it, which would fall silent."""
    return any(part.type == "SOUND" for part in inside(strip))


def hide(scene: bpy.types.Scene, source: bpy.types.Strip, strip_id: str) -> None:
    """Has a keyframe's strip hidden for a tween from the next `follow` on; one that the artist hid stays his.

    The effects on it are too: an effect shows its strip although that is hidden.
    """
    for one in with_effects(scene, source):
        ids = str(one.get(HIDDEN, "")).split()
        if not ids and not one.mute:
            one[HIDDEN], one[UNCOVERED] = strip_id, True
        elif ids and strip_id not in ids:
            one[HIDDEN] = " ".join([*ids, strip_id])


def show(scene: bpy.types.Scene, source: bpy.types.Strip) -> None:
    """Shows a keyframe's strip and the effects on it again, whoever hid them."""
    for one in with_effects(scene, source):
        one.mute = False
        _let_go(one)


def toggle(scene: bpy.types.Scene, strip: bpy.types.Strip) -> bool:
    """Shows a tween's keyframes if all are hidden, else hides them; True if it hid them.

    The tween's own setting follows: what is promoted later is treated as the rest.
    """
    # What the artist has shown by hand since is his, and may be hidden anew.
    follow(scene)
    hides = not all_hidden(scene, strip)
    for source in sources(scene, strip):
        if hides:
            hide(scene, source, str(strip[insert.JOB]))
        else:
            show(scene, source)
    follow(scene)
    strip.keytween_own.settings.hide_keyframes = hides
    return hides


def _let_go(strip: bpy.types.Strip) -> None:
    for name in (HIDDEN, UNCOVERED):
        if name in strip:
            del strip[name]


# ---- as strips come and go

Tweens = dict[str, list[bpy.types.Strip]]


def follow(scene: bpy.types.Scene) -> None:
    """Hides and shows a scene's keyframes as their tweens lie now: above them, elsewhere, or deleted."""
    hidden = _hidden_in(scene)
    tweens = _tweens_in(scene) if hidden else {}
    for strip in hidden:
        _follow(strip, tweens)


def _hidden_in(scene: bpy.types.Scene) -> list[bpy.types.Strip]:
    return [s for s in scene.sequence_editor.strips_all if HIDDEN in s] if scene.sequence_editor else []


def _tweens_in(scene: bpy.types.Scene) -> Tweens:
    """A scene's tweens by their ids; copies of a tween have the same one."""
    found: Tweens = {}
    for strip in scene.sequence_editor.strips_all:
        if insert.JOB in strip:
            found.setdefault(str(strip[insert.JOB]), []).append(strip)
    return found


def _follow(strip: bpy.types.Strip, tweens: Tweens) -> None:
    above = [tween for strip_id in str(strip[HIDDEN]).split() for tween in tweens.get(strip_id, ())]
    shown = UNCOVERED in strip
    if strip.mute == shown:
        # The artist has shown or hidden it meanwhile: it is his from now on.
        _let_go(strip)
    elif not above:
        strip.mute = False
        _let_go(strip)
    elif shown == any(_covers(tween, strip) for tween in above):
        strip.mute = shown
        if shown:
            del strip[UNCOVERED]
        else:
            strip[UNCOVERED] = True


def _covers(tween: bpy.types.Strip, strip: bpy.types.Strip) -> bool:
    """Whether a tween shows something at every frame that a keyframe's strip has."""
    if tween.mute or vse_compat.start(strip) < vse_compat.start(tween):
        return False
    return vse_compat.end(strip) <= vse_compat.end(tween)


def look_after() -> None:
    """Follows with the next hidden keyframes, of all scenes, for as long as a chore may take."""
    deadline = time.perf_counter() + BUDGET_S
    hidden = [(scene, strip) for scene in bpy.data.scenes for strip in _hidden_in(scene)]
    tweens: dict[str, Tweens] = {}
    for _ in hidden:
        scene, strip = hidden[_turn[0] % len(hidden)]
        _turn[0] = (_turn[0] + 1) % len(hidden)
        if scene.name not in tweens:
            tweens[scene.name] = _tweens_in(scene)
        _follow(strip, tweens[scene.name])
        if time.perf_counter() > deadline:
            return


def register() -> None:
    """Has the timer look after hidden keyframes."""
    poller.CHORES.append(look_after)


def unregister() -> None:
    """Leaves them as they are."""
    if look_after in poller.CHORES:
        poller.CHORES.remove(look_after)
