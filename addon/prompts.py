# SPDX-License-Identifier: GPL-3.0-or-later
"""What each keyframe shows, in words: a prompt that a strip may have of its own."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

OWN = "keytween_prompt"
"""The property on a strip; empty means the scene's prompt."""


def prompts_of(settings: bpy.types.PropertyGroup, strips: Sequence[bpy.types.Strip]) -> tuple[str, ...]:
    """The keyframes' prompts: none, the settings' one for all, or one for each when a strip has its own."""
    shared = settings.prompt.strip()
    own = [getattr(strip, OWN).strip() for strip in strips]
    if any(own):
        return tuple(prompt or shared for prompt in own)
    return (shared,) if shared else ()


def register() -> None:
    """Gives every strip a prompt."""
    bpy.types.Strip.keytween_prompt = bpy.props.StringProperty(
        name="Prompt", description="What this keyframe shows; empty to use the prompt of all keyframes"
    )


def unregister() -> None:
    """Takes the property away; what was written stays in the file."""
    del bpy.types.Strip.keytween_prompt
