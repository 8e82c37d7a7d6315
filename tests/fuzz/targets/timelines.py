# SPDX-License-Identifier: Apache-2.0
"""OpenTimelineIO: a timeline and an archive as the batch reads them, and as the add-on does."""

from __future__ import annotations

import io
import json
import random
import stat
import sys
import zipfile
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import ModuleType

import mutations
import opentimelineio  # noqa: F401  (imported late otherwise, where nobody watches)
from bounds import foreseen, scratch

import keytween.engines  # noqa: F401
from keytween.shots import conform, reading
from keytween_wire.errors import TimelineUnusable

LONGEST = 16_384
WORDS = (
    *(
        b'"OTIO_SCHEMA": "',
        b"Timeline.1",
        b"Stack.1",
        b"Track.1",
        b"Clip.1",
        b"Clip.2",
        b"Gap.1",
        b"Transition.1",
    ),
    *(b"ExternalReference.1", b"ImageSequenceReference.1", b"MissingReference.1", b"RationalTime.1"),
    *(b"TimeRange.1", b"Marker.2", b"SerializableCollection.1", b"LinearTimeWarp.1", b'"children": ['),
    *(
        b'"source_range": ',
        b'"available_range": ',
        b'"media_reference": ',
        b'"media_references": ',
        b'"tracks": ',
    ),
    *(
        b'"global_start_time": ',
        b'"target_url": ',
        b'"target_url_base": ',
        b'"name_prefix": ',
        b'"name_suffix": ',
    ),
    *(
        b'"start_frame": ',
        b'"frame_step": ',
        b'"frame_zero_padding": ',
        b'"rate": ',
        b'"value": ',
        b'"markers": ',
    ),
    *(
        b'"metadata": ',
        b'"keytween": ',
        b'"prompt": ',
        b'"shot": ',
        b'"diffusion": ',
        b'"duration": ',
        b"NaN",
    ),
    *(b"Infinity", b"1e308", b"-1", b"0", b"null", b"[]", b"{}", b"23.976", b"file://", b"..", b"PK\x03\x04"),
    *(b"content.otio", b"PK\x01\x02", b"PK\x05\x06", b"\\ud800", b"\\u0000", b"99999999999", b".png"),
)
ADDON = Path(__file__).resolve().parents[3] / "addon"
SUFFIXES = (".png", ".exr", ".jpg")
_KEYS = [word.decode().strip('": {[') for word in WORDS if word.startswith(b'"')]
_MEMBERS = (
    "../a",
    "/a",
    "a/../../b",
    "C:\\a",
    "a\\b",
    ".lock",
    ".unpacked.json",
    "a//b",
    "a/",
    "a",
    "a/b",
    "content.otio/b",
)
_MEMBERS += ("content.otio", "\0", "con", "n" * 300, "é", "..", ".")


def one_input(data: bytes) -> None:
    """Reads a ZIP archive as `.otioz`, anything else as `.otio`, at both ends of the project."""
    archive = data.startswith(b"PK")
    source = scratch() / ("show.otioz" if archive else "show.otio")
    source.write_bytes(data)
    batch = foreseen(lambda: reading.read(source, output=scratch() / "batch"))
    if batch is not None:
        foreseen(lambda: conform.write(batch))
    if not archive:
        foreseen(lambda: _opened(source), TimelineUnusable)


def _opened(source: Path) -> None:
    found = addon().read(source, SUFFIXES)
    paced = addon().at_rate(found, Fraction(24))
    for cut in (cut for each in (found, paced) for track in each.tracks for cut in track.cuts):
        assert cut.end > cut.start
        assert len(cut.files) in (1, cut.end - cut.start)


@cache
def addon() -> ModuleType:
    """The add-on's own reader, which needs no Blender."""
    sys.path.insert(0, str(ADDON))
    import timeline_file

    sys.path.remove(str(ADDON))
    return timeline_file


addon()


def changed(data: bytes, rng: random.Random) -> bytes:
    """A timeline with one value changed, or an archive with another member, method or promise."""
    if not data.startswith(b"PK"):
        return json.dumps(mutations.tree(json.loads(data), _KEYS, rng)).encode()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[rng.choice(_MEMBERS)] = members.pop(rng.choice(list(members)))
    if rng.random() < 0.5:
        members[rng.choice(_MEMBERS)] = b"x"
    buffer = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = rng.choice((0, 0o644, 0o777 | stat.S_IFLNK, stat.S_IFDIR)) << 16
            archive.writestr(info, content, rng.choice(methods))
        for info in archive.infolist():
            info.file_size = rng.choice((info.file_size, info.file_size, 0, 2**31, 2**40))
    return buffer.getvalue()
