# SPDX-License-Identifier: Apache-2.0
"""Shots tables (TOML, CSV), the settings file, and the records that a batch keeps of its shots.

An input's first letter says which of them the rest is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import mutations
from bounds import foreseen, scratch

import keytween.engines
import keytween.images
import keytween.models  # noqa: F401  (imported late otherwise, where nobody watches)
from keytween import config
from keytween.shots import planning, reading, wishes
from keytween.shots.records import Shelf
from keytween.shots.shot import SETTINGS, Batch, Shot
from keytween_wire.messages import Diffusion

LONGEST = 2048
WORDS = tuple(
    word.encode()
    for word in (
        *SETTINGS,
        *(field.name for field in dataclasses.fields(Diffusion)),
        *(field.name for field in dataclasses.fields(config.Config)),
        *(
            "[[shot]]",
            "[defaults]",
            "[shot.diffusion]",
            "preset",
            "folders",
            "{folder}",
            "{shot}",
            "{frame:04d}",
        ),
        *(
            "output",
            "from-names",
            "####",
            "%04d",
            "*",
            "**",
            "~",
            "key.####.png",
            "nan",
            "inf",
            "1e999",
            "0x",
        ),
        *("diffmorpher", "flow", "auto", "sine-in-out", "true", "false", '"""', "'''", "[", "{", "\\u0000"),
    )
)
MOST_FRAMES = 1000
"""Shots up to so long are followed to their files' names."""

_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c49444154789c6360606000000004000127c0de470000000049454e44ae426082"
)


def one_input(data: bytes) -> None:
    """Reads the rest as what the first letter says."""
    kind, rest = data[:1], data[1:]
    if kind == b"s":
        _settings(rest)
    elif kind == b"r":
        _records(rest)
    else:
        _shots(rest, ".csv" if kind == b"c" else ".toml")


@cache
def _show() -> Path:
    """A folder with a few keyframes, from which shots files count."""
    folder = scratch() / "show"
    for name in ("key.0001.png", "key.0008.png", "walk/a1.png", "walk/b2.png", "run/a1.png", "run/b2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_PIXEL)
    return folder


# ---- shots


def _shots(data: bytes, suffix: str) -> None:
    source = _show() / f"shots{suffix}"
    source.write_bytes(data)
    if leads_outside(data):
        return
    batch = foreseen(lambda: reading.read(source))
    if batch is None:
        return
    for fault in batch.faults:
        assert foreseen(lambda error=fault.error: _raise(error)) is None
    for shot in batch.shots[:3]:
        assert Shot.from_json(shot.as_json()) == shot
        foreseen(lambda shot=shot: _planned(batch, shot))


def leads_outside(data: bytes) -> bool:
    """Whether a pattern may look through all of this machine, which takes as long as it is large."""
    return b"**" in data and (b".." in data or b"/*" in data or b"\\" in data)


def _raise(error: Exception) -> None:
    raise error


def _planned(batch: Batch, shot: Shot) -> None:
    planned = planning.prepare(shot, batch.output, _config())
    if len(planned.plan.cels) <= MOST_FRAMES:
        planning.check_places(planned, Shelf(batch.results, shot.id))


@cache
def _config() -> config.Config:
    return config.Config(state=scratch() / "state", connection=scratch() / "connection.json")


# ---- settings


def _settings(data: bytes) -> None:
    file = scratch() / "keytween.toml"
    file.write_bytes(data)
    os.environ["KEYTWEEN_CONFIG"] = str(file)
    found = foreseen(lambda: config.load({}))
    if found is None:
        return
    for field in dataclasses.fields(config.Config):
        value = getattr(found, field.name)
        assert type(value).__name__ in (field.type, "PosixPath", "WindowsPath"), f"{field.name} is {value!r}"
        assert value == value, f"{field.name} is no number"
    assert "\0" not in f"{found.state}{found.connection}"


# ---- records


def _records(data: bytes) -> None:
    shelf = Shelf(scratch() / "results", "walk")
    shelf.folder.mkdir(parents=True, exist_ok=True)
    shelf.record_file.write_bytes(data)
    assert isinstance(shelf.load(), dict | None)
    shelf.journal.write_bytes(data)
    for stored in shelf.read_journal("walk").values():
        assert stored.intact in (True, False)
    (shelf.results / ".wishes").mkdir(exist_ok=True)
    (shelf.results / ".wishes" / "one.json").write_bytes(data)
    for shot, what in wishes.take(shelf.results):
        assert isinstance(shot, str)
        assert isinstance(what, str)


# ---- new inputs


def changed(data: bytes, rng: random.Random) -> bytes:
    """One value of a TOML table, a JSON record or a CSV cell changed."""
    kind, text = data[:1], data[1:].decode()
    words = [word.decode() for word in WORDS]
    if kind == b"c":
        cells = [line.split(",") for line in text.splitlines()]
        row = rng.choice(cells)
        row[rng.randrange(len(row))] = str(rng.choice([*mutations.STRANGE[:-1], *words]))
        return kind + "\n".join(",".join(row) for row in cells).encode("utf-8", "replace")
    if kind == b"r":
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutations.tree(json.loads(lines[at]), ["cel", "file", "schema"], rng))
        return kind + "\n".join(lines).encode()
    tree = mutations.tree(tomllib.loads(text), words, rng)
    return kind + "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in tree.items()).encode()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value) if value > 2**64 else str(value)
    return str(value).lower()
