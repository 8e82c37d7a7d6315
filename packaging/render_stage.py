"""The stage on which the benches' Blender scenes are rendered: flat shapes, two-toned solids, outlines.

Surfaces shine in one of two tones, by how they lie to the light, so there is no noise. An outline is a larger
skin of which the side towards the camera is gone. It needs Blender as a Python module, or Blender itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import bpy

# Blender's other modules are there once bpy is.
# isort: split
import bmesh
from mathutils import Matrix, Vector

Colour = tuple[int, int, int]
Point = tuple[float, float, float]

SAMPLES = 256
"""Rays for each pixel; they smooth edges alone, as surfaces are flat."""

VIEW = 4.0
"""How wide the picture is. x goes right, z up, y away from the camera; 0 is the picture's middle."""
LINE = 0.036
LIGHT = Vector((-0.5, -0.62, 0.6)).normalized()
NOWHERE = Matrix.Identity(4)
INK: Colour = (52, 38, 58)

# ---- meshes


def ball(centre: Point, radii: Point, *, turn: Matrix = NOWHERE) -> bmesh.types.BMesh:
    """An ellipsoid, turned, then moved to its centre."""
    mesh = bmesh.new()
    bmesh.ops.create_uvsphere(mesh, u_segments=72, v_segments=36, radius=1)
    mesh.transform(Matrix.Translation(centre) @ turn @ Matrix.Diagonal((*radii, 1)))
    return mesh


def limb(start: Point, stop: Point, thick: float, thin: float | None = None) -> bmesh.types.BMesh:
    """A rounded limb between two joints: radius `thick` at the first and `thin` at the second."""
    along = Vector(stop) - Vector(start)
    mesh = ball((0, 0, 0), (1, 1, 1))
    for vertex in mesh.verts:
        # The sphere's equator belongs to the first half: the two halves are joined by the ring above it.
        far = vertex.co.z > 1e-4
        vertex.co = vertex.co * ((thick if thin is None else thin) if far else thick)
        vertex.co.z += along.length if far else 0
    mesh.transform(Matrix.Translation(start) @ along.to_track_quat("Z", "Y").to_matrix().to_4x4())
    return mesh


def skin_behind(mesh: bmesh.types.BMesh, thickness: float) -> bmesh.types.BMesh:
    """What is seen of a larger skin around a mesh, once the side towards the camera is taken away."""
    skin = mesh.copy()
    skin.normal_update()
    moved = [(vertex, vertex.co + vertex.normal * thickness) for vertex in skin.verts]
    for vertex, place in moved:
        vertex.co = place
    skin.normal_update()
    near = [face for face in skin.faces if face.normal.y <= 0]
    bmesh.ops.delete(skin, geom=near, context="FACES")
    return skin


# ---- shapes on a sheet


def disc(x: float, z: float, wide: float, tall: float) -> list[tuple[float, float]]:
    """The outline of an ellipse."""
    angles = [math.tau * step / 96 for step in range(96)]
    return [(x + wide * math.cos(a), z + tall * math.sin(a)) for a in angles]


def box(left: float, low: float, right: float, high: float) -> list[tuple[float, float]]:
    """The corners of a box."""
    return [(left, low), (right, low), (right, high), (left, high)]


# ---- the stage


class Stage:
    """An empty Blender scene with a camera, in which flat colours come out as they are given."""

    def __init__(self, size: int, *, clear: bool = False) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self._materials: dict[tuple[Colour, bool, float], bpy.types.Material] = {}
        self._scene = bpy.context.scene
        self._set_up(size, clear=clear)
        self._place_camera()

    def _set_up(self, size: int, *, clear: bool) -> None:
        render, cycles = self._scene.render, self._scene.cycles
        render.engine = "CYCLES"
        render.resolution_x = render.resolution_y = size
        render.resolution_percentage = 100
        render.film_transparent = clear
        render.dither_intensity = 0
        render.use_compositing = render.use_sequencer = False
        for name in [n for n in dir(render) if n.startswith("use_stamp")]:
            setattr(render, name, False)
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGBA" if clear else "RGB"
        render.image_settings.color_depth = "8"
        render.image_settings.compression = 100
        self._scene.view_settings.view_transform = "Standard"
        cycles.device = "CPU"
        cycles.samples = SAMPLES
        cycles.seed = 1
        cycles.use_denoising = cycles.use_adaptive_sampling = False
        cycles.max_bounces = 0
        cycles.filter_width = 1.2

    def _place_camera(self) -> None:
        camera = bpy.data.cameras.new("camera")
        camera.type = "ORTHO"
        camera.ortho_scale = VIEW
        camera.clip_end = 100
        seen_from = bpy.data.objects.new("camera", camera)
        seen_from.matrix_world = Matrix.Translation((0, -20, 0)) @ Matrix.Rotation(math.pi / 2, 4, "X")
        self._scene.collection.objects.link(seen_from)
        self._scene.camera = seen_from

    def solid(
        self, mesh: bmesh.types.BMesh, *colours: Colour, line: float = LINE, place: Matrix = NOWHERE
    ) -> None:
        """A shape with an outline, in two tones of its colours, which its faces pick by material number."""
        mesh.transform(place)
        if line:
            self._add(skin_behind(mesh, line), [self._material(INK, lit=False)])
        self._add(mesh, [self._material(colour, lit=True) for colour in colours])

    def mark(self, mesh: bmesh.types.BMesh, colour: Colour, *, place: Matrix = NOWHERE) -> None:
        """A shape in one flat colour, without an outline: an eye, a mouth."""
        mesh.transform(place)
        self._add(mesh, [self._material(colour, lit=False)])

    def sheet(
        self, points: Sequence[tuple[float, float]], colour: Colour, *, depth: float, matte: float = 1.0
    ) -> None:
        """A flat shape that stands upright, so far behind the middle; the larger `depth`, the farther."""
        mesh = bmesh.new()
        mesh.faces.new([mesh.verts.new((x, depth, z)) for x, z in points])
        self._add(mesh, [self._material(colour, lit=False, matte=matte)])

    def _add(self, mesh: bmesh.types.BMesh, materials: Sequence[bpy.types.Material]) -> None:
        for face in mesh.faces:
            face.smooth = True
        data = bpy.data.meshes.new("mesh")
        mesh.to_mesh(data)
        mesh.free()
        for material in materials:
            data.materials.append(material)
        self._scene.collection.objects.link(bpy.data.objects.new("shape", data))

    def _material(self, colour: Colour, *, lit: bool, matte: float = 1.0) -> bpy.types.Material:
        key = (colour, lit, matte)
        if key not in self._materials:
            self._materials[key] = toon(colour, lit=lit, matte=matte)
        return self._materials[key]

    def photograph(self, path: Path) -> None:
        """Renders the stage into a PNG."""
        self._scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        path.write_bytes(plain(path.read_bytes()))


def toon(colour: Colour, *, lit: bool, matte: float) -> bpy.types.Material:
    """A material that shines in its colour; a `lit` one has a darker tone on the side away from the light."""
    material = bpy.data.materials.new("toon")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    surface = shining(nodes, colour)
    if lit:
        surface = mixed(nodes, links, shining(nodes, shaded(colour)), surface)
        links.new(lightness(nodes, links), surface.node.inputs["Fac"])
    elif matte < 1:
        surface = mixed(nodes, links, nodes.new("ShaderNodeBsdfTransparent").outputs[0], surface)
        surface.node.inputs["Fac"].default_value = matte
    links.new(surface, nodes.new("ShaderNodeOutputMaterial").inputs["Surface"])
    return material


def shining(nodes: bpy.types.Nodes, colour: Colour) -> bpy.types.NodeSocket:
    """A surface that shines in one sRGB colour."""
    emission = nodes.new("ShaderNodeEmission")
    emission.inputs["Color"].default_value = (*(linear(value) for value in colour), 1)
    return emission.outputs[0]


def mixed(
    nodes: bpy.types.Nodes,
    links: bpy.types.NodeLinks,
    first: bpy.types.NodeSocket,
    second: bpy.types.NodeSocket,
) -> bpy.types.NodeSocket:
    """A mix of two surfaces, the second at a factor of 1."""
    mix = nodes.new("ShaderNodeMixShader")
    links.new(first, mix.inputs[1])
    links.new(second, mix.inputs[2])
    return mix.outputs[0]


def lightness(nodes: bpy.types.Nodes, links: bpy.types.NodeLinks) -> bpy.types.NodeSocket:
    """0 on a face that lies away from the light, 1 towards it, with a soft step between them."""
    dot = nodes.new("ShaderNodeVectorMath")
    dot.operation = "DOT_PRODUCT"
    dot.inputs[1].default_value = LIGHT
    links.new(nodes.new("ShaderNodeNewGeometry").outputs["Normal"], dot.inputs[0])
    step = nodes.new("ShaderNodeMapRange")
    step.interpolation_type = "SMOOTHSTEP"
    step.inputs["From Min"].default_value = 0.0
    step.inputs["From Max"].default_value = 0.14
    links.new(dot.outputs["Value"], step.inputs["Value"])
    return step.outputs["Result"]


def linear(value: int) -> float:
    """An sRGB value of 0 to 255 as light."""
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def shaded(colour: Colour) -> Colour:
    """A colour's tone away from the light: darker, and a little towards violet."""
    red, green, blue = colour
    return round(red * 0.82), round(green * 0.74), round(blue * 0.82)


def plain(png: bytes) -> bytes:
    """A PNG with its pixels alone, without the time it took and whatever else Blender notes."""
    kept, place = png[:8], 8
    while place < len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] in (b"IHDR", b"IDAT", b"IEND"):
            kept += png[place:end]
        place = end
    return kept
