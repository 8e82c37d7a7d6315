# SPDX-License-Identifier: GPL-3.0-or-later
"""How the daemon is started and found, and where frames go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy


class KeytweenPreferences(bpy.types.AddonPreferences):
    """The add-on's page in Blender's preferences."""

    bl_idname = __package__

    command: bpy.props.StringProperty(
        name="Daemon Command",
        description="How to run the program `keytween`; empty to look for it on the path",
    )
    connection_file: bpy.props.StringProperty(
        name="Connection File",
        description="The daemon's connection file; empty for this user's own daemon",
        subtype="FILE_PATH",
    )
    requirement: bpy.props.StringProperty(
        name="Install From",
        description="What Set Up installs: a wheel's path or a package requirement; "
        "empty for the daemon that came with the extension",
    )
    with_diffusion: bpy.props.BoolProperty(
        name="With DiffMorpher",
        description="Set the daemon up with what the engine DiffMorpher needs; several gigabytes to fetch",
    )
    output_folder: bpy.props.StringProperty(
        name="Output Folder",
        description="Where the frames go; empty for a folder `keytween` beside the blend file",
        subtype="DIR_PATH",
    )
    auto_connect: bpy.props.BoolProperty(
        name="Connect by Itself",
        description="Connect to a daemon as soon as there is one, without being asked",
        default=True,
    )

    def draw(self, context: bpy.types.Context) -> None:
        """Draws the page."""
        layout = self.layout
        for section in SECTIONS:
            section(layout.box(), context, self)
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.prop(self, "command", placeholder="keytween")
        column.prop(self, "connection_file", placeholder="This user's daemon")
        column.prop(self, "output_folder", placeholder="//keytween/")
        column.prop(self, "auto_connect")
        layout.operator("keytween.copy_diagnostics", icon="COPYDOWN")


Section = Callable[[bpy.types.UILayout, bpy.types.Context, KeytweenPreferences], None]
SECTIONS: list[Section] = []
"""What other modules draw at the top of the page, while they are registered."""


def get() -> KeytweenPreferences:
    """The preferences as they stand."""
    return bpy.context.preferences.addons[__package__].preferences


def user_folder(name: str) -> Path:
    """A folder that is the add-on's own, made if need be."""
    return Path(bpy.utils.extension_path_user(__package__, path=name, create=True))


def output_folder() -> Path:
    """Where a job's folder goes: chosen, beside the blend file, or the add-on's own when it is not saved."""
    chosen = get().output_folder
    if chosen and (bpy.data.filepath or not chosen.startswith("//")):
        return Path(bpy.path.abspath(chosen))
    if bpy.data.filepath:
        return Path(bpy.data.filepath).parent / "keytween"
    return user_folder("frames")


register, unregister = bpy.utils.register_classes_factory((KeytweenPreferences,))
