# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Keytween is found without its panel: the sequencer's right-click menu, and presets of settings."""

from __future__ import annotations

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from . import hiding, insert, tween, vse_compat
from .properties import KeytweenSettings

FOLDER = "keytween"
NOT_KEPT = {"rna_type", "name", "error"}
"""What a preset leaves alone: it is no setting."""


class KEYTWEEN_MT_presets(bpy.types.Menu):
    """Saved settings; the list is Blender's own."""

    bl_idname = "KEYTWEEN_MT_presets"
    bl_label = "Keytween Presets"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    draw = bpy.types.Menu.draw_preset


class KEYTWEEN_OT_add_preset(AddPresetBase, bpy.types.Operator):
    """Keep these settings as a preset, or remove one"""

    bl_idname = "keytween.add_preset"
    bl_label = "Add Keytween Preset"
    bl_description = "Keep these settings as a preset, or remove one"
    preset_menu = "KEYTWEEN_MT_presets"
    preset_subdir = FOLDER
    # 5.0 and later let the sequencer show another scene than the window.
    preset_defines = (
        "scene = getattr(bpy.context, 'sequencer_scene', None) or bpy.context.scene",
        "settings = scene.keytween",
    )

    @staticmethod
    def kept() -> list[str]:
        """Every setting of the panel, as a preset's file names it."""
        properties = KeytweenSettings.bl_rna.properties
        plain = (p.identifier for p in properties if p.type not in {"POINTER", "COLLECTION"})
        return [f"settings.{name}" for name in plain if name not in NOT_KEPT]

    @property
    def preset_values(self) -> list[str]:
        """What Blender writes into the preset's file."""
        return self.kept()


class KEYTWEEN_PT_presets(PresetPanel, bpy.types.Panel):
    """The presets behind the icon in the panel's header."""

    bl_label = "Keytween Presets"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "keytween.add_preset"


FOR_KEYFRAMES = ("tween",)
FOR_TWEENS = (
    *("retime", "regenerate", "promote", "replace_drawing", "give_back", "hide_keyframes", "reuse_settings"),
)
"""The operators of the right-click menu, in its order; one that cannot run there is grey and says why."""


def draw_context_menu(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    """Our part of the sequencer's right-click menu; nothing where no strip could be meant."""
    scene = vse_compat.sequencer_scene(context)
    if scene.sequence_editor is None:
        return
    names = FOR_KEYFRAMES if tween.count_selected(scene) else ()
    names += FOR_TWEENS if tween_is_active(scene) else ()
    if not names:
        return
    layout = menu.layout
    layout.separator()
    # A click must go through invoke: execute waits for the drawings.
    layout.operator_context = "INVOKE_DEFAULT"
    for name in names:
        if name == "hide_keyframes":
            draw_hiding(layout, scene)
        else:
            layout.operator(f"keytween.{name}", icon="IPO_EASE_IN_OUT" if name == "tween" else "NONE")


def draw_hiding(layout: bpy.types.UILayout, scene: bpy.types.Scene) -> None:
    """The button that hides the active tween's keyframes, or shows them; it says which."""
    shows = hiding.all_hidden(scene, scene.sequence_editor.active_strip)
    text, icon = ("Show Keyframes", "HIDE_OFF") if shows else (None, "HIDE_ON")
    layout.operator("keytween.hide_keyframes", text=text, icon=icon)


def tween_is_active(scene: bpy.types.Scene) -> bool:
    """Whether the active strip is one that Keytween made."""
    strip = scene.sequence_editor.active_strip
    return strip is not None and insert.TWEEN in strip


_register, _unregister = bpy.utils.register_classes_factory(
    (KEYTWEEN_MT_presets, KEYTWEEN_OT_add_preset, KEYTWEEN_PT_presets)
)


def register() -> None:
    """Adds the classes and the menu's entries."""
    _register()
    bpy.types.SEQUENCER_MT_context_menu.append(draw_context_menu)


def unregister() -> None:
    """Takes them away again."""
    bpy.types.SEQUENCER_MT_context_menu.remove(draw_context_menu)
    _unregister()
