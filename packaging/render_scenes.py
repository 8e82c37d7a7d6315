"""Renders the benches' three Blender scenes: run it, and bench/rendered holds the same pictures again.

Run it with a Python that has Blender as a module:

    python packaging/render_scenes.py

A scene is nine frames, 0000.png to 0008.png, at equally spaced positions from the first keyframe to the
last. An engine that is given those two can be compared with the true drawings between them:

- head: a head turns by 40 degrees, evenly.
- walk: half a step; every joint turns evenly, and the body goes where the foot on the ground carries it.
- ball: a ball falls and lands, on nothing, with a matte. Its turn, its squash and its way to the right are
  even; its fall is not: it gains speed, as a ball does.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from pathlib import Path

from render_stage import INK, LINE, Colour, Point, Stage, ball, box, disc, limb

# isort: split
import bmesh
from mathutils import Matrix, Vector

FOLDER = Path(__file__).resolve().parents[1] / "daemon" / "keytween" / "bench" / "rendered"
FRAMES = 9
SIZE = 320

SKIN: Colour = (250, 214, 186)
HAIR: Colour = (176, 88, 62)
RED: Colour = (226, 92, 84)
CREAM: Colour = (255, 242, 220)
BLUE: Colour = (74, 104, 160)
WHITE: Colour = (255, 255, 255)
YELLOW: Colour = (244, 196, 84)
NOSE: Colour = (244, 182, 158)
BLUSH: Colour = (246, 168, 152)


def swung(start: Point, degrees: float, length: float) -> Point:
    """Where a limb ends that hangs from a joint and is swung so far to the right."""
    angle = math.radians(degrees)
    return start[0] + length * math.sin(angle), start[1], start[2] - length * math.cos(angle)


def mix(first: float, last: float, position: float) -> float:
    """The value so far between two."""
    return first + (last - first) * position


# ---- the head

SKULL = Vector((0.98, 0.94, 1.0))


def head(position: float, size: int) -> Stage:
    """A child with pigtails who turns her head from one side to the other."""
    stage = Stage(size)
    stage.sheet(box(-3, -3, 3, 3), (150, 200, 204), depth=9)
    stage.sheet(disc(0, 0.1, 1.72, 1.72), (236, 226, 190), depth=8)
    stage.solid(ball((0, 0.15, -2.0), (1.02, 0.5, 0.72)), (88, 150, 122))
    stage.solid(limb((0, 0.15, -0.9), (0, 0.12, -1.38), 0.26), SKIN)
    turn = Matrix.Rotation(math.radians(mix(-20, 20, position)), 4, "Z")
    place = Matrix.Translation((0, 0, 0.05)) @ turn
    stage.solid(ball((0, 0, 0), tuple(SKULL)), SKIN, place=place)
    stage.solid(ball(on_head(0, -12, 0.99), (0.1, 0.13, 0.09)), NOSE, line=0, place=place)
    hair(stage, place)
    for side in (-1, 1):
        stage.solid(ball((side * 0.98, 0.02, -0.1), (0.14, 0.11, 0.2)), SKIN, place=place)
        pigtail(stage, side, place=place)
        features(stage, side, place=place)
    mouth = [on_head(a, -33 + 5 * (a / 15) ** 2, 0.985) for a in range(-15, 16, 3)]
    for start, stop in itertools.pairwise(mouth):
        stage.mark(limb(start, stop, 0.03), INK, place=place)
    return stage


def on_head(azimuth: float, height: float, far: float) -> Point:
    """A point on the head: degrees to its left and up from the nose, and how far out, 1 on the skin."""
    a, h = math.radians(azimuth), math.radians(height)
    x, y, z = math.sin(a) * math.cos(h), -math.cos(a) * math.cos(h), math.sin(h)
    return x * SKULL.x * far, y * SKULL.y * far, z * SKULL.z * far


def facing(azimuth: float, height: float) -> Matrix:
    """Turns a shape that lies before the nose to another place on the head."""
    level = Matrix.Rotation(math.radians(-height), 4, "X")
    return Matrix.Rotation(math.radians(azimuth), 4, "Z") @ level


def features(stage: Stage, side: int, *, place: Matrix) -> None:
    """One eye with its shine, one brow, one cheek."""
    eye, cheek = facing(24 * side, -2), facing(38 * side, -20)
    stage.mark(ball(on_head(24 * side, -2, 0.975), (0.1, 0.05, 0.165), turn=eye), INK, place=place)
    shine = on_head(24 * side - 2.5, 3, 1.02)
    stage.mark(ball(shine, (0.036, 0.02, 0.045), turn=eye), WHITE, place=place)
    stage.mark(
        ball(on_head(38 * side, -20, 0.98), (0.14, 0.03, 0.09), turn=cheek), (246, 168, 152), place=place
    )
    brow = [on_head(side * a, 20 - 4 * ((a - 24) / 9) ** 2, 0.99) for a in (15, 20, 24, 28, 33)]
    for start, stop in itertools.pairwise(brow):
        stage.mark(limb(start, stop, 0.028), HAIR, place=place)


def hair(stage: Stage, place: Matrix) -> None:
    """The hair on the skull, down to a fringe in front and to the nape behind."""
    mesh = ball((0, 0, 0), (1, 1, 1))
    lowest = min(mesh.verts, key=lambda vertex: vertex.co.z)
    bmesh.ops.delete(mesh, geom=[lowest], context="VERTS")
    for vertex in mesh.verts:
        azimuth = math.degrees(math.atan2(vertex.co.x, -vertex.co.y))
        share = math.acos(max(-1, min(1, vertex.co.z))) / math.radians(175)
        vertex.co = on_hair(azimuth, 90 - (90 - hairline(azimuth)) * share)
    stage.solid(mesh, HAIR, place=place)
    rim = [on_hair(a, hairline(a)) for a in range(-110, 111, 2)]
    for start, stop in itertools.pairwise(rim):
        stage.mark(limb(start, stop, LINE / 2), INK, place=place)


def on_hair(azimuth: float, height: float) -> Point:
    """A point on the hair, which lies closer to the head the lower it is."""
    return on_head(azimuth, height, mix(1.01, 1.07, min(1.0, max(0.0, (height + 34) / 60))))


def hairline(azimuth: float) -> float:
    """How far down the hair comes: four locks over the forehead, one before each ear, the nape."""
    if abs(azimuth) < 56:
        return 24 + 12 * abs(math.sin(math.radians((azimuth + 56) * 180 / 28)))
    share = min(1.0, (abs(azimuth) - 56) / 26)
    return mix(24, -34, share * share * (3 - 2 * share))


def pigtail(stage: Stage, side: int, *, place: Matrix) -> None:
    """One bunch of hair with its band."""
    stage.solid(limb((side * 1.26, 0.3, 0.28), (side * 1.4, 0.3, -0.18), 0.22, 0.28), HAIR, place=place)
    stage.solid(ball((side * 1.08, 0.22, 0.44), (0.15, 0.17, 0.17)), RED, place=place)


# ---- the walk

FLOOR = -1.5
THIGH, SHIN, SOLE = 0.62, 0.6, 0.13


def walk(position: float, size: int) -> Stage:
    """A boy who walks to the right: the near foot stays on the ground, the far leg comes forward."""
    stage = Stage(size)
    landscape(stage)
    near = mix(30, -14, position), mix(-6, -8, position), mix(106, 90, position)
    far = mix(-24, 34, position), mix(-26, -30, position), mix(42, 98, position)
    heel = (-0.02, -0.14, FLOOR + SOLE)
    knee = swung(heel, near[0] + near[1] + 180, SHIN)
    hip = swung(knee, near[0] + 180, THIGH)
    leg(stage, (hip[0], 0.14, hip[2]), far, (58, 82, 130))
    chest = swung((hip[0], 0, hip[2] + 0.08), 176, 0.66)
    arm(stage, (chest[0], 0.42, chest[2]), (mix(34, -30, position), mix(30, 18, position)))
    stage.sheet(disc(hip[0], FLOOR - 0.03, 0.66, 0.09), (108, 152, 96), depth=3)
    leg(stage, hip, near, BLUE)
    stage.solid(limb((hip[0], 0, hip[2] + 0.1), chest, 0.33, 0.3), RED)
    walker_head(stage, swung(chest, 176, 0.74))
    arm(stage, (chest[0], -0.4, chest[2]), (mix(-36, 28, position), mix(16, 34, position)))
    return stage


def landscape(stage: Stage) -> None:
    """Sky, sun, a hill, a fence and the ground."""
    stage.sheet(box(-3, -3, 3, 3), (190, 224, 240), depth=12)
    stage.sheet(disc(1.35, 1.35, 0.3, 0.3), (255, 226, 132), depth=11)
    stage.sheet(disc(-1.2, -2.2, 2.2, 1.6), (160, 204, 158), depth=10)
    stage.sheet(disc(1.9, -2.4, 1.9, 1.5), (142, 190, 146), depth=9)
    for x in (-1.75, -0.85, 0.05, 0.95, 1.85):
        stage.sheet(box(x - 0.07, -1.4, x + 0.07, -0.55), (232, 214, 184), depth=7)
    for low in (-0.82, -1.14):
        stage.sheet(box(-3, low, 3, low + 0.1), (244, 230, 204), depth=8)
    stage.sheet(box(-3, -3, 3, -1.3), (132, 178, 110), depth=6)


def leg(stage: Stage, hip: Point, turns: tuple[float, float, float], colour: Colour) -> None:
    """Thigh, shin and boot: the swing of the hip, the bend of the knee, where the toes point; in degrees."""
    swing, bend, toes = turns
    knee = swung(hip, swing, THIGH)
    ankle = swung(knee, swing + bend, SHIN)
    toe = swung(ankle, toes, 0.2)
    stage.solid(limb(ankle, toe, SOLE, 0.11), (120, 74, 60))
    stage.solid(limb(knee, ankle, 0.165, 0.12), colour)
    stage.solid(limb(hip, knee, 0.22, 0.165), colour)


def arm(stage: Stage, shoulder: Point, swing: tuple[float, float]) -> None:
    """Sleeve, forearm and hand, from the swing of the shoulder and the bend of the elbow in degrees."""
    elbow = swung(shoulder, swing[0], 0.42)
    wrist = swung(elbow, swing[0] + swing[1], 0.36)
    stage.solid(ball(wrist, (0.13, 0.12, 0.13)), SKIN)
    stage.solid(limb(elbow, wrist, 0.11, 0.085), SKIN)
    stage.solid(limb(shoulder, elbow, 0.16, 0.125), RED)


def walker_head(stage: Stage, centre: Point) -> None:
    """The head in profile, with a cap."""
    place = Matrix.Translation(centre)
    stage.solid(ball((0, 0, 0), (0.48, 0.46, 0.47)), SKIN, place=place)
    stage.solid(ball((0.5, -0.02, -0.06), (0.1, 0.08, 0.08)), NOSE, place=place)
    stage.solid(ball((-0.1, 0, 0.06), (0.46, 0.47, 0.45)), HAIR, place=place)
    stage.solid(ball((-0.02, 0, 0.2), (0.5, 0.5, 0.36)), YELLOW, place=place)
    stage.solid(limb((0.3, 0, 0.24), (0.68, 0, 0.2), 0.07), YELLOW, place=place)
    stage.solid(ball((-0.12, -0.45, -0.08), (0.09, 0.05, 0.11)), SKIN, place=place)
    stage.mark(ball((0.27, -0.6, -0.02), (0.05, 0.02, 0.085)), INK, place=place)
    for start, stop in (
        ((0.24, -0.6, -0.24), (0.31, -0.6, -0.25)),
        ((0.31, -0.6, -0.25), (0.37, -0.6, -0.21)),
    ):
        stage.mark(limb(start, stop, 0.018), INK, place=place)


# ---- the ball


def striped(mesh: bmesh.types.BMesh, segments: int) -> bmesh.types.BMesh:
    """A unit ball whose segments around z take turns between two colours."""
    for face in mesh.faces:
        middle = face.calc_center_median()
        share = math.atan2(middle.y, middle.x) / math.tau % 1
        face.material_index = int(share * segments) % 2 if abs(middle.z) < 0.96 else 2
    return mesh


def falling_ball(position: float, size: int) -> Stage:
    """A beach ball that falls to the right, stretched on its way and squashed as it lands; volume is kept."""
    stage = Stage(size, clear=True)
    tall = mix(1.22, 0.72, position)
    wide = 0.62 / math.sqrt(tall)
    low = mix(0.25, FLOOR, 0.55 * position + 0.45 * position**2)
    x = mix(-0.62, 0.45, position)
    lean = Matrix.Rotation(math.radians(mix(-22, 0, position)), 4, "Y")
    roll = Matrix.Rotation(math.radians(mix(0, 50, position)), 4, "Y")
    axis = Matrix.Rotation(math.radians(52), 4, "X") @ Matrix.Rotation(math.radians(20), 4, "Y")
    shape = lean @ Matrix.Diagonal((wide, wide, 0.62 * tall, 1))
    mesh = striped(ball((0, 0, 0), (1, 1, 1)), 6)
    place = Matrix.Translation((x, 0, low + 0.62 * tall)) @ shape @ roll @ axis
    stage.solid(mesh, RED, CREAM, YELLOW, place=place)
    near = mix(0.45, 1, position)
    stage.sheet(disc(x, FLOOR, 0.78 * near, 0.1 * near), INK, depth=4, matte=0.4)
    return stage


SCENES: dict[str, Callable[[float, int], Stage]] = {"head": head, "walk": walk, "ball": falling_ball}


def render(name: str, folder: Path, *, size: int) -> None:
    """Every frame of a scene, in a folder of its name."""
    for number in range(FRAMES):
        stage = SCENES[name](number / (FRAMES - 1), size)
        stage.photograph(folder / name / f"{number:04d}.png")


def main() -> None:
    """Renders the scenes that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the scenes' folders go")
    parser.add_argument("--size", type=int, default=SIZE, help="width and height in pixels")
    parser.add_argument("--scene", choices=SCENES, help="one scene alone")
    given = parser.parse_args()
    for name in [given.scene] if given.scene else SCENES:
        render(name, given.folder, size=given.size)


if __name__ == "__main__":
    main()
