"""Scenes whose in-betweens are known: each can be drawn at any position between its two keyframes.

Motion is linear in position: places, sizes and camera move evenly, angles turn evenly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from keytween.bench import actors, textures
from keytween.bench.actors import Pen, Pose
from keytween.images import Picture
from keytween.toon.canvas import Array, Canvas, Colour, Place, box, ellipse, star

SIZE = 384
PAPER: Colour = (0.93, 0.91, 0.86)
GROUPS = ("rigid", "articulated", "occlusion", "matte", "texture", "camera", "lines", "rendered", "own")
Actor = Callable[[Pen], None]
Path = Callable[[float], Place]


@dataclass(frozen=True)
class Scene:
    """Two keyframes and the truth between them: `draw(0)`, `draw(1)`, and `draw(position)`.

    `textured` tells drawings with flat colours from pictures with texture. Where the truth is known at
    some positions alone, `known` lists those between 0 and 1; an empty tuple means any.
    """

    name: str
    group: str
    textured: bool
    draw: Callable[[float], Picture]
    known: tuple[float, ...] = ()


def scenes(size: int = SIZE) -> tuple[Scene, ...]:
    """Every procedural scene, `size` pixels wide and high."""
    return (
        *_shifts(size),
        *_turns(size),
        *_articulated(size),
        *_occlusions(size),
        *_mattes(size),
        *_noises(size),
        *_cameras(size),
        *_lines(size),
    )


# ---- how a scene is put together


def _between(start: Place, stop: Place) -> Path:
    """A way from one place to another, even in each of its numbers."""

    def at(position: float) -> Place:
        pairs = zip(_numbers(start), _numbers(stop), strict=True)
        return Place(*(a + (b - a) * position for a, b in pairs))

    return at


def _numbers(place: Place) -> tuple[float, float, float, float, float]:
    return place.x, place.y, place.turn, place.wide, place.tall


def _layer(size: int, actor: Actor, place: Place | None = None, *, filled: bool = True) -> Array:
    """An actor alone on a clear sheet: (size, size, 4), straight matte."""
    canvas = Canvas(size, size)
    actor(actors.pen(canvas, place, filled=filled))
    return canvas.picture()


def _over(top: Array, bottom: Array) -> Array:
    """A layer with a matte (H, W, 4) on an opaque one (H, W, 3)."""
    matte = top[..., 3:]
    return np.asarray(top[..., :3] * matte + bottom * (1 - matte), np.float32)


def _grained(layer: Array, place: Place, seed: int) -> Array:
    """The layer with noise in its colours that moves with its place."""
    grain = textures.noise(layer.shape[0], place, seed)
    grained = layer.copy()
    grained[..., :3] *= 0.45 + 0.75 * grain
    return np.clip(grained, 0, 1)


def _flat(size: int, colour: Colour) -> Array:
    return np.full((size, size, 3), colour, np.float32)


def _picture(values: Array) -> Picture:
    """The values (H, W, 3 or 4) in 0..1 as an 8-bit picture."""
    return Picture(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _meadow(size: int) -> Array:
    return _layer(size, actors.meadow)[..., :3]


def _acted(size: int, path: Path, position: float, *, meadow: bool = False, grain: int = 0) -> Picture:
    """The bird on its path; with `grain` (a seed) its colours are textured."""
    place = path(position)
    layer = _layer(size, actors.bird, place)
    if grain:
        layer = _grained(layer, place, grain)
    return _picture(_over(layer, _meadow(size) if meadow else _flat(size, PAPER)))


# ---- rigid motion


def _shifts(size: int) -> tuple[Scene, ...]:
    # Not by whole pixels, at the middle either: a picture that is only moved would be exact.
    eighth = _between(Place(0.4521, 0.4903), Place(0.5757, 0.5102))
    quarter = _between(Place(0.36, 0.47), Place(0.61, 0.53))
    growing = _between(Place(0.48, 0.5, 0, 1.0, 1.0), Place(0.52, 0.5, 0, 1.5, 1.5))
    return (
        Scene("shift-eighth", "rigid", False, partial(_acted, size, eighth)),
        Scene("shift-eighth-textured", "rigid", True, partial(_acted, size, eighth, grain=3)),
        Scene("shift-quarter", "rigid", False, partial(_acted, size, quarter, meadow=True)),
        Scene("shift-quarter-textured", "rigid", True, partial(_acted, size, quarter, meadow=True, grain=3)),
        Scene("scale-1.5", "rigid", False, partial(_acted, size, growing)),
    )


def _turns(size: int) -> tuple[Scene, ...]:
    def turn(degrees: float) -> Path:
        large = 1.35
        return _between(Place(0.5, 0.5, -10, large, large), Place(0.5, 0.5, degrees - 10, large, large))

    both = _between(Place(0.38, 0.42, -15, 1.1, 1.1), Place(0.58, 0.56, 20, 1.1, 1.1))
    return (
        Scene("turn-30", "rigid", False, partial(_acted, size, turn(30), meadow=True)),
        Scene("turn-30-plain", "rigid", False, partial(_acted, size, turn(30))),
        Scene("turn-30-textured", "rigid", True, partial(_acted, size, turn(30), meadow=True, grain=4)),
        Scene("turn-60", "rigid", False, partial(_acted, size, turn(60), meadow=True)),
        Scene("turn-60-plain", "rigid", False, partial(_acted, size, turn(60))),
        Scene("turn-60-textured", "rigid", True, partial(_acted, size, turn(60), meadow=True, grain=4)),
        Scene("turn-and-shift", "rigid", False, partial(_acted, size, both)),
    )


# ---- joints, faces, squash


_STAND = Pose()
_SALUTE = Pose(near_arm=(62, 28))
_STEP = Pose((-24, 12), (26, 22), (26, -8), (-24, -16))
_PASS = Pose((4, 16), (0, 14), (2, -4), (6, -48), lift=0.02)


def _articulated(size: int) -> tuple[Scene, ...]:
    return (
        Scene("arm-swing", "articulated", False, partial(_posed, size, _STAND, _SALUTE, Place(0.47, 0.58))),
        Scene("walk", "articulated", False, partial(_walked, size)),
        Scene("squash-ball", "articulated", False, partial(_bounced, size)),
        Scene("face-turn", "articulated", False, partial(_faced, size)),
    )


def _posed(size: int, first: Pose, last: Pose, place: Place, position: float) -> Picture:
    """The figure on its way from one pose to another."""
    pose = first.towards(last, position)
    return _picture(_over(_layer(size, partial(actors.figure, pose=pose), place), _flat(size, PAPER)))


def _walked(size: int, position: float) -> Picture:
    """Half a step of a walk, seen from the side, in a landscape."""
    place = _between(Place(0.42, 0.56), Place(0.54, 0.56))(position)
    layer = _layer(size, partial(actors.figure, pose=_STEP.towards(_PASS, position)), place)
    return _picture(_over(layer, _meadow(size)))


def _bounced(size: int, position: float) -> Picture:
    """A ball that leaves the ground: flat at first, long at last, its area kept."""
    tall = 0.72 + 0.56 * position
    centre = Place(0.5, 0.82 - 0.16 * tall - 0.26 * position, 0, 1 / tall, tall)

    def actor(pen: Pen) -> None:
        shadow = 0.17 - 0.07 * position
        pen.fill(ellipse(0.5, 0.83, shadow, 0.03), (0.62, 0.59, 0.56), line=False)
        ball = pen.inside(centre)
        ball.fill(ellipse(0, 0, 0.16, 0.16), actors.ORANGE)
        ball.fill(box(0, 0.01, 0.159, 0.03), actors.CREAM)
        ball.fill(ellipse(-0.06, -0.08, 0.035, 0.025), actors.WHITE, line=False)

    return _picture(_over(_layer(size, actor), _flat(size, PAPER)))


def _faced(size: int, position: float) -> Picture:
    """A head that turns from left to right."""
    turned = partial(actors.face, turn=-22 + 44 * position)
    return _picture(_over(_layer(size, turned, Place(0.5, 0.48)), _flat(size, (0.72, 0.82, 0.86))))


# ---- one before the other


def _occlusions(size: int) -> tuple[Scene, ...]:
    return (
        Scene("crossing", "occlusion", False, partial(_crossed, size)),
        Scene("parallax", "occlusion", True, partial(_passed, size)),
    )


def _crossed(size: int, position: float) -> Picture:
    """A bird that flies right before a star that drifts left."""

    def behind(pen: Pen) -> None:
        pen.fill(star(0, 0, 0.2, points=5, turn=10), actors.ORANGE)
        pen.fill(ellipse(0, 0, 0.06, 0.06), actors.CREAM)

    back = _over(_layer(size, behind, Place(0.62 - 0.22 * position, 0.45)), _flat(size, PAPER))
    front = _layer(size, actors.bird, Place(0.36 + 0.25 * position, 0.55))
    return _picture(_over(front, back))


def _passed(size: int, position: float) -> Picture:
    """A bird before a textured background that moves the other way, more slowly."""
    back = textures.noise(size, Place(0.04 - 0.06 * position, 0), 11)
    front = _layer(size, actors.bird, Place(0.4 + 0.16 * position, 0.5, 0, 1.2, 1.2))
    return _picture(_over(front, back * 0.8))


# ---- mattes, textures, cameras, lines


def _mattes(size: int) -> tuple[Scene, ...]:
    shift = _between(Place(0.38, 0.5, 0, 1.2, 1.2), Place(0.58, 0.48, 0, 1.2, 1.2))
    turn = _between(Place(0.5, 0.5, -20, 1.4, 1.4), Place(0.5, 0.5, 25, 1.4, 1.4))

    def sprite(path: Path, position: float) -> Picture:
        return _picture(_layer(size, actors.bird, path(position)))

    return (
        Scene("sprite-shift", "matte", False, partial(sprite, shift)),
        Scene("sprite-turn", "matte", False, partial(sprite, turn)),
    )


def _noises(size: int) -> tuple[Scene, ...]:
    shift = _between(Place(0.42, 0.48), Place(0.58, 0.52))
    turn = _between(Place(0.5, 0.5, 0), Place(0.5, 0.5, 30))
    whole = _between(Place(0.0, 0.0, 0), Place(0.06, 0.04, 4, 1.05, 1.05))

    def pebble(path: Path, position: float) -> Picture:
        """A textured pebble, without an outline, on another texture that lies still."""
        place = path(position)
        layer = _layer(size, lambda pen: pen.fill(ellipse(0, 0, 0.26, 0.18), (1, 1, 1), line=False), place)
        layer[..., :3] = textures.noise(size, place, 21, coarse=4, fine=40)
        return _picture(_over(layer, 0.25 + 0.5 * textures.noise(size, Place(), 22)))

    def sheet(position: float) -> Picture:
        """Noise from edge to edge that shifts, grows and turns a little."""
        return _picture(textures.noise(size, whole(position), 23, coarse=2, fine=36))

    return (
        Scene("noise-shift", "texture", True, partial(pebble, shift)),
        Scene("noise-turn", "texture", True, partial(pebble, turn)),
        Scene("noise-sheet", "texture", True, sheet),
    )


def _cameras(size: int) -> tuple[Scene, ...]:
    pan = _between(Place(0.1, -0.03), Place(-0.08, -0.03))
    zoom = _between(Place(0.0, 0.0), Place(-0.2, -0.17, 0, 1.3, 1.3))

    def seen(path: Path, position: float) -> Picture:
        return _picture(_layer(size, actors.town, path(position))[..., :3])

    return (
        Scene("pan", "camera", False, partial(seen, pan)),
        Scene("zoom", "camera", False, partial(seen, zoom)),
    )


def _lines(size: int) -> tuple[Scene, ...]:
    turn = _between(Place(0.5, 0.5, -8, 1.5, 1.5), Place(0.53, 0.5, 14, 1.5, 1.5))

    def drawn(actor: Callable[[float], Actor], path: Path, position: float) -> Picture:
        layer = _layer(size, actor(position), path(position), filled=False)
        return _picture(_over(layer, _flat(size, (1, 1, 1))))

    def waving(position: float) -> Actor:
        return partial(actors.figure, pose=_STAND.towards(_SALUTE, position))

    return (
        Scene("lines-turn", "lines", False, partial(drawn, lambda position: actors.bird, turn)),
        Scene("lines-arm", "lines", False, partial(drawn, waving, lambda position: Place(0.47, 0.58))),
    )
