"""Draws the bundled example keyframes: run it, and daemon/keytween/examples holds the same pictures again.

A pose is a handful of numbers, and a scene draws any mix of two poses. That is how the tests and the
benchmarks know what the true drawing halfway between two keyframes looks like.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from keytween.toon import characters, painting
from keytween.toon.characters import Looks, Toon

SCALE = 4
"""Every shape is drawn this much larger, and made small again: that smooths its edges."""
INK = (52, 38, 58)
FOLDER = Path(__file__).resolve().parents[1] / "daemon" / "keytween" / "examples"

Point = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """Puts local points on the picture: scaled, turned by `turn` degrees, then moved."""

    x: float
    y: float
    turn: float = 0.0
    wide: float = 1.0
    tall: float = 1.0

    def __call__(self, points: Iterable[Point]) -> list[Point]:
        angle = math.radians(self.turn)
        cos, sin = math.cos(angle), math.sin(angle)
        scaled = [(x * self.wide, y * self.tall) for x, y in points]
        return [(self.x + x * cos - y * sin, self.y + x * sin + y * cos) for x, y in scaled]


class Sheet:
    """A picture that is drawn on in its final pixels, with smooth edges."""

    def __init__(self, width: int, height: int, ground: Colour | None) -> None:
        self.size = (width, height)
        fill = (*INK, 0) if ground is None else (*ground, 255)
        self.image = Image.new("RGBA", (width * SCALE, height * SCALE), fill)
        self.draw = ImageDraw.Draw(self.image)

    def shape(self, points: Sequence[Point], fill: Colour, *, line: float = 3.5, ink: Colour = INK) -> None:
        """A filled shape with an outline of so many pixels; 0 leaves the outline out."""
        large = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.polygon(large, fill=fill)
        if line:
            self.stroke([*points, points[0]], ink, line=line)

    def stroke(self, points: Sequence[Point], ink: Colour, *, line: float) -> None:
        """A line with round ends and joints."""
        large = [(x * SCALE, y * SCALE) for x, y in points]
        width = round(line * SCALE)
        radius = (width - 1) / 2
        self.draw.line(large, fill=ink, width=width)
        for x, y in large:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)

    def finished(self) -> Image.Image:
        """The picture at its size, straight matte; reduced premultiplied, so no ground shines through."""
        large = np.asarray(self.image, np.float64)
        width, height = self.size
        blocks = large.reshape(height, SCALE, width, SCALE, 4)
        matte = blocks[..., 3:].mean(axis=(1, 3))
        colour = (blocks[..., :3] * blocks[..., 3:]).mean(axis=(1, 3)) / np.maximum(matte, 1e-9)
        pixels = np.concatenate([np.where(matte > 0, colour, 0), matte], axis=2)
        return Image.fromarray(np.round(pixels).astype(np.uint8), "RGBA")


def oval(x: float, y: float, wide: float, tall: float, *, turn: float = 0.0) -> list[Point]:
    """An ellipse around (x, y)."""
    ring = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 72, endpoint=False)]
    return Place(x, y, turn, wide, tall)(ring)


def smooth(points: Sequence[Point], *, closed: bool = True) -> list[Point]:
    """A curve through all the points."""
    ring = [points[-1], *points, points[0], points[1]] if closed else [points[0], *points, points[-1]]
    known = np.array(ring, float)
    steps = np.linspace(0, 1, 14, endpoint=False)[:, None]
    pieces: list[Point] = []
    for a, b, c, d in zip(known, known[1:], known[2:], known[3:], strict=False):
        bend = 2 * a - 5 * b + 4 * c - d
        curve = b + 0.5 * ((c - a) * steps + bend * steps**2 + (3 * (b - c) + d - a) * steps**3)
        pieces += [(float(x), float(y)) for x, y in curve]
    return pieces if closed else [*pieces, points[-1]]


def limb(points: Sequence[Point], width: float, fill: Colour, sheet: Sheet) -> None:
    """A round limb with an outline."""
    sheet.stroke(points, INK, line=width + 7)
    sheet.stroke(points, fill, line=width)


@dataclass(frozen=True)
class Pose:
    """How the girl on the hill stands."""

    lean: float
    nod: float
    arm: float
    hand: float
    look: float
    lids: float
    smile: float


@dataclass(frozen=True)
class Leap:
    """Where the fox is in its leap."""

    x: float
    y: float
    turn: float
    wide: float
    tall: float
    tail: float
    legs: float


AnyPose = TypeVar("AnyPose", Pose, Leap)


def between(first: AnyPose, second: AnyPose, position: float) -> AnyPose:
    """The pose so far between two."""
    names = [field.name for field in fields(first)]
    mixed = [(1 - position) * getattr(first, n) + position * getattr(second, n) for n in names]
    return type(first)(*mixed)


WAVE = (
    Pose(lean=-4, nod=-8, arm=20, hand=-8, look=-4, lids=1.0, smile=0.6),
    Pose(lean=0, nod=0, arm=0, hand=-6, look=0, lids=0.6, smile=0.8),
    Pose(lean=4, nod=8, arm=-18, hand=-4, look=4, lids=1.0, smile=1.0),
)
LEAP = (
    Leap(x=176, y=228, turn=5, wide=1.06, tall=0.92, tail=9, legs=0.35),
    Leap(x=204, y=202, turn=-7, wide=0.98, tall=1.04, tail=-4, legs=0.9),
)


def hill(sheet: Sheet) -> None:
    """A summer day: sun, clouds, hills, a small house."""
    sheet.shape(oval(538, 78, 38, 38), (255, 222, 120), line=0)
    for x, y, size in ((96, 70, 1.0), (420, 110, 0.7)):
        cloud = [(-50, 12), (-34, -8), (-12, -6), (2, -24), (26, -16), (36, -2), (54, 12), (0, 16)]
        sheet.shape(smooth(Place(x, y, 0, size, size)(cloud)), (250, 252, 255), line=0)
    far = [(-20, 380), (-20, 262), (90, 222), (220, 250), (370, 214), (500, 244), (660, 206), (660, 380)]
    sheet.shape(smooth(far), (142, 190, 150), line=0)
    sheet.shape([(86, 208), (128, 208), (128, 244), (86, 244)], (240, 228, 205), line=2)
    sheet.shape([(78, 210), (107, 184), (136, 210)], (205, 104, 88), line=2)
    near = [(-20, 400), (-20, 300), (140, 282), (320, 292), (500, 278), (660, 300), (660, 400)]
    sheet.shape(smooth(near), (116, 172, 110), line=0)


def girl(pose: Pose) -> Image.Image:
    """The girl on the hill, 640 x 360, opaque."""
    sheet = Sheet(640, 360, (188, 224, 242))
    hill(sheet)
    body = Place(320, 372, pose.lean)
    head = Place(*body([(0, -178)])[0], pose.lean + pose.nod)
    hair_back(sheet, head)
    torso(sheet, body)
    raised_arm(sheet, body, pose)
    face(sheet, head, pose)
    return sheet.finished().convert("RGB")


def hair_back(sheet: Sheet, head: Place) -> None:
    """The bob behind the head."""
    side = [(52, -66), (74, -20), (66, 22), (48, 44)]
    bob = [(0, -84), *side, (0, 38), *((-x, y) for x, y in reversed(side))]
    sheet.shape(smooth(head(bob)), (126, 66, 58))


def torso(sheet: Sheet, body: Place) -> None:
    """Jumper, neck and the arm that hangs."""
    limb(smooth(body([(-44, -100), (-66, -62), (-70, -16)]), closed=False), 24, (222, 92, 84), sheet)
    limb(body([(0, -142), (0, -118)]), 22, (250, 214, 186), sheet)
    jumper = [(-52, 20), (-50, -60), (-46, -108), (-20, -124), (20, -124), (46, -108), (50, -60), (52, 20)]
    sheet.shape(smooth(body(jumper)), (222, 92, 84))
    for low in (-66, -44):
        stripe = smooth(body([(-44, low), (0, low + 6), (44, low)]), closed=False)
        sheet.stroke(stripe, (250, 236, 214), line=8)


def raised_arm(sheet: Sheet, body: Place, pose: Pose) -> None:
    """The arm that waves, with its hand."""
    arm = Place(*body([(42, -100)])[0], pose.lean + pose.arm)
    elbow, wrist = arm([(52, -16), (88, -58)])
    limb(smooth([*arm([(0, 0)]), elbow, wrist], closed=False), 24, (222, 92, 84), sheet)
    hand = Place(*wrist, pose.lean + pose.arm + pose.hand + 40)
    thumb = [(-13, 4), (-24, -12), (-17, -20), (-12, -14)]
    palm = [*thumb, (-9, -36), (0, -39), (9, -36), (15, -16), (13, 4), (0, 9)]
    sheet.shape(smooth(hand(palm)), (250, 214, 186))


def face(sheet: Sheet, head: Place, pose: Pose) -> None:
    """The head with eyes, mouth and fringe."""
    skull = [(-56, -20), (-40, -60), (0, -72), (40, -60), (56, -20), (44, 26), (0, 46), (-44, 26)]
    sheet.shape(smooth(head(skull)), (250, 214, 186))
    for side in (-1, 1):
        cheek = head([(side * 34 + pose.look * 0.6, 14)])[0]
        sheet.shape(oval(*cheek, 9, 6, turn=head.turn), (246, 170, 154), line=0)
        eye(sheet, head, side * 23 + pose.look, pose)
    corner, middle = 24 + 5 * pose.smile, 25 + 7 * pose.smile
    mouth = [(-12, 22), (-6, corner), (0, middle), (6, corner), (12, 22)]
    sheet.stroke(smooth(head([(x + pose.look, y) for x, y in mouth]), closed=False), INK, line=3.5)
    crown = [(-60, -14), (-62, -46), (-36, -74), (2, -82), (40, -72), (62, -44), (60, -14)]
    fringe = [(46, -34), (22, -42), (4, -30), (-16, -44), (-42, -34)]
    sheet.shape(smooth(head(crown + fringe)), (126, 66, 58))


def eye(sheet: Sheet, head: Place, x: float, pose: Pose) -> None:
    """One eye: its height follows the lids."""
    tall = 12 * pose.lids
    centre, shine = head([(x, -4), (x + 2.5, -4 - tall * 0.35)])
    sheet.shape(oval(*centre, 7.5, tall, turn=head.turn), INK, line=0)
    sheet.shape(oval(*shine, 2.6, 3 * pose.lids, turn=head.turn), (255, 255, 255), line=0)


def fox(leap: Leap) -> Image.Image:
    """The leaping fox, 384 x 384, on nothing."""
    sheet = Sheet(384, 384, None)
    place = Place(leap.x, leap.y, leap.turn, leap.wide, leap.tall)
    tail(sheet, place, leap.tail)
    for x, back in ((-44, -1), (34, 1)):
        leg(sheet, place, x, back * leap.legs, shade=(206, 104, 48))
    trunk = [(-70, 6), (-58, -26), (-10, -34), (44, -36), (66, -8), (52, 26), (0, 34), (-52, 32)]
    sheet.shape(smooth(place(trunk)), (238, 132, 62))
    belly = [(-30, 30), (0, 20), (46, 14), (58, 8), (50, 25), (0, 32)]
    sheet.shape(smooth(place(belly)), (255, 240, 222), line=0)
    for x, back in ((-56, -1), (48, 1)):
        leg(sheet, place, x, back * leap.legs, shade=(238, 132, 62))
    fox_head(sheet, Place(*place([(66, -40)])[0], leap.turn * 0.6, leap.wide, leap.tall))
    return sheet.finished()


def tail(sheet: Sheet, place: Place, swing: float) -> None:
    """The brush and its white tip."""
    brush = Place(*place([(-62, -4)])[0], place.turn + swing, place.wide, place.tall)
    hairs = [(6, 12), (-34, 20), (-72, -2), (-96, -46), (-62, -42), (-32, -30), (4, -14)]
    sheet.shape(smooth(brush(hairs)), (238, 132, 62))
    tip = [(-76, -8), (-96, -46), (-62, -42), (-66, -32), (-60, -24), (-70, -20)]
    sheet.shape(smooth(brush(tip)), (255, 240, 222))


def leg(sheet: Sheet, place: Place, x: float, reach: float, *, shade: Colour) -> None:
    """One leg: gathered under the body, or reaching out."""
    points = place([(x, 14), (x + 9 * reach, 40), (x + 24 * reach, 66 - 8 * abs(reach))])
    limb(smooth(points, closed=False), 18, shade, sheet)
    paw = place([(x + 3 + 24 * reach, 66 - 8 * abs(reach))])[0]
    sheet.shape(oval(*paw, 13, 9, turn=place.turn), INK, line=0)


def fox_head(sheet: Sheet, head: Place) -> None:
    """The head, looking to the right."""
    for ear in ([(-30, -26), (-34, -72), (-2, -40)], [(4, -40), (26, -74), (34, -30)]):
        sheet.shape(head(ear), (238, 132, 62))
        x, y = sum(p[0] for p in ear) / 6, sum(p[1] for p in ear) / 6
        sheet.shape(head([(p[0] / 2 + x, p[1] / 2 + y) for p in ear]), INK, line=0)
    skull = [(-46, 2), (-34, -38), (4, -48), (38, -32), (52, -2), (84, 16), (60, 32), (6, 38), (-34, 28)]
    sheet.shape(smooth(head(skull)), (238, 132, 62))
    cheek = [(-30, 27), (-6, 12), (26, 10), (50, 2), (81, 16), (59, 30), (6, 36)]
    sheet.shape(smooth(head(cheek)), (255, 240, 222), line=0)
    sheet.shape(oval(*head([(80, 14)])[0], 8, 6.5, turn=head.turn), INK, line=0)
    centre, shine = head([(24, -8), (26.5, -12)])
    sheet.shape(oval(*centre, 6.5, 9.5, turn=head.turn), INK, line=0)
    sheet.shape(oval(*shine, 2.3, 2.8, turn=head.turn), (255, 255, 255), line=0)
    sheet.stroke(smooth(head([(36, 24), (48, 27), (60, 23)]), closed=False), INK, line=3)


# ---- toons, at the size that the checkpoint `toon` draws

TOON_SIDE = 128
LOOKS = Looks(
    skin=(0.97, 0.8, 0.65),
    hair=(0.66, 0.34, 0.17),
    coat=(0.17, 0.65, 0.64),
    trim=(0.97, 0.78, 0.84),
    paper=(0.99, 0.96, 0.89),
    ground=(1.0, 0.91, 0.66),
    wide=1.0,
    tall=0.98,
    eyes=1.1,
    apart=1.0,
    blush=0.8,
    line=1.05,
    horizon=0.75,
)
BOY = replace(LOOKS, hair=(0.18, 0.14, 0.19), skin=(0.88, 0.66, 0.47), coat=(0.89, 0.34, 0.18))
FACE = characters.Pose(y=0.5, scale=0.29, smile=0.9)
CHANGE = (
    Toon("child", "bob", "sun", LOOKS, replace(FACE, turn=-0.2)),
    Toon("animal", "cat", "sun", replace(LOOKS, hair=(0.91, 0.7, 0.3)), replace(FACE, mouth=0.6)),
    Toon("animal", "bear", "sun", replace(LOOKS, hair=(0.36, 0.24, 0.18)), replace(FACE, turn=0.3)),
)
TURN = tuple(
    Toon("child", "short", "ground", BOY, replace(FACE, turn=turn, tilt=8 * turn, brows=brows))
    for turn, brows in ((-0.3, -0.4), (0.3, 0.6))
)


def toon(drawing: Toon) -> Image.Image:
    """The toon on its backdrop."""
    pixels = np.round(painting.draw(drawing, TOON_SIDE)[..., :3] * 255)
    return Image.fromarray(pixels.astype(np.uint8))


def save(name: str, draw: Callable[[], Image.Image], folder: Path) -> None:
    """One keyframe as PNG, without time or tool in it."""
    draw().save(folder / f"{name}.png", optimize=True)


def main() -> None:
    """Draws every keyframe into the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(WAVE, 1):
        save(f"wave_{number}", lambda pose=pose: girl(pose), folder)
    for number, leap in enumerate(LEAP, 1):
        save(f"leap_{number}", lambda leap=leap: fox(leap), folder)
    for name, drawings in (("change", CHANGE), ("turn", TURN)):
        for number, drawing in enumerate(drawings, 1):
            save(f"{name}_{number}", lambda drawing=drawing: toon(drawing), folder)


if __name__ == "__main__":
    main()
