# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts that are put together: translated as Blender's own are, then filled in.

Labels, names and tooltips that are plain need nothing of this: Blender translates them itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import bpy

from keytween_wire.errors import KeytweenError


class _Lenient(dict[str, object]):
    """Fills a template although a value is missing, as one from an older daemon may."""

    def __missing__(self, key: str) -> str:
        return "?"


def said(template: str, /, **values: object) -> str:
    """The template in the interface's language, with its values filled in."""
    return _filled(bpy.app.translations.pgettext_iface(template), values)


def plain(text: str, /) -> str:
    """A text that has nothing to be filled in, in the interface's language."""
    return bpy.app.translations.pgettext_iface(text)


def sentence(error: KeytweenError) -> str:
    """What went wrong, in the language of Blender's reports."""
    return _filled(bpy.app.translations.pgettext_rpt(error.sentence), error.values)


def advice(error: KeytweenError) -> str:
    """What to do about it, in the same language."""
    return _filled(bpy.app.translations.pgettext_rpt(error.next_step), error.values)


def _filled(template: str, values: Mapping[str, object]) -> str:
    return template.format_map(_Lenient(values))
