"""What an OpenTimelineIO file must be like before the library's own reader, native code, sees it. Pure.

It ends the whole process where JSON is torn, says a thing twice, or has nothing where a thing must be.
"""

from __future__ import annotations

import json
import re
from typing import Any

MOST_DEPTH = 200
_SCHEMA = "OTIO_SCHEMA"
_VERSIONED = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\.[1-9][0-9]{0,5}")
_TIME, _RANGE = ("RationalTime",), ("TimeRange",)
_FIELDS: dict[str, tuple[str, ...]] = {
    "tracks": ("Stack",),
    "global_start_time": _TIME,
    "start_time": _TIME,
    "duration": _TIME,
    "in_offset": _TIME,
    "out_offset": _TIME,
    "source_range": _RANGE,
    "available_range": _RANGE,
    "marked_range": _RANGE,
}
"""Fields that hold a thing of one of these schemas, or null."""
_LISTS = ("children", "effects", "markers")
_NEEDED = {"Timeline": ("tracks",), "TimeRange": ("start_time", "duration")}


def sound(text: str) -> str:
    """The JSON of a timeline, written anew; raises ValueError or RecursionError where it is not sound."""
    tree = json.loads(text)
    if not isinstance(tree, dict) or not isinstance(tree.get(_SCHEMA), str):
        raise ValueError(f"it has no {_SCHEMA}")
    _look(tree, 0)
    return json.dumps(tree)


def _look(value: Any, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        if _SCHEMA in value:
            _check(value)
        for each in value.values():
            _look(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _look(each, depth + 1)


def _check(thing: dict[str, Any]) -> None:
    kind = name_of(thing)
    if not _VERSIONED.fullmatch(str(thing[_SCHEMA])):
        raise ValueError(f"{str(thing[_SCHEMA])[:40]!r} is no schema")
    # This one comes with the next schema of clips, and is not expected in the older.
    if thing[_SCHEMA] == "Clip.1":
        thing.pop("media_references", None)
    for field in _NEEDED.get(kind, ()):
        if thing.get(field) is None:
            raise ValueError(f"a {kind} lacks its {field}")
    for field, kinds in _FIELDS.items():
        found = thing.get(field)
        if found is not None and name_of(found) not in kinds:
            raise ValueError(f"the {field} of a {kind[:40]} is no {kinds[0]}")
    for field in _LISTS:
        items = thing.get(field)
        if items is not None and not (isinstance(items, list) and all(map(name_of, items))):
            raise ValueError(f"the {field} of a {kind[:40]} are no list of things")
    _check_media(thing, kind)


def _check_media(thing: dict[str, Any], kind: str) -> None:
    many = thing.get("media_references")
    if many is not None and not (isinstance(many, dict) and all(_is_media(each) for each in many.values())):
        raise ValueError(f"the media of a {kind[:40]} are none")
    one = thing.get("media_reference")
    if one is not None and not _is_media(one):
        raise ValueError(f"the media of a {kind[:40]} are none")


def _is_media(thing: Any) -> bool:
    return "Reference" in name_of(thing)


def name_of(thing: Any) -> str:
    """A thing's schema without its version, empty for what is no thing."""
    schema = thing.get(_SCHEMA) if isinstance(thing, dict) else None
    return schema.partition(".")[0] if isinstance(schema, str) else ""
