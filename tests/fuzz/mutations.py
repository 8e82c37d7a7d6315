# SPDX-License-Identifier: Apache-2.0
"""New inputs from old ones, by a seeded chance: bytes changed blindly, trees (JSON, msgpack) at one node."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

STRANGE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        255,
        65_536,
        2**31,
        2**63 - 1,
        2**63,
        2**64 - 1,
        -(2**63),
        10**12,
        10**30,
        16**5000,
    ),
    *(0.0, -0.0, 0.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "0",
        "-1",
        "a",
        "nan",
        "~",
        "~nobody/a.png",
        "..",
        "../../a",
        "/",
        "\0",
        "a\0b",
        "\ud800",
        "é",
        "²",
        "{}",
        "{0}",
    ),
    *(
        "{frame:9999999999d}",
        "{shot[0]}",
        "{shot[x]}",
        "%d",
        "%09999999999d",
        "*" * 12,
        "a" * 300,
        "b" * 70_000,
        "http://[x",
    ),
    *([], {}, [[]], {"": ""}, [0] * 40, b""),
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff" * 8,
    b"-1",
    b"0",
    b"1e999",
    b"[" * 1500,
)


def any_of(data: bytes, others: Sequence[bytes], words: Sequence[bytes], rng: random.Random) -> bytes:
    """The bytes with one to four changes: flipped, cut, repeated, spliced, a word put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(changed))
        end = min(len(changed), at + rng.choice((1, 2, 4, 8, 64)))
        match rng.randrange(7):
            case 0 if changed:
                changed[at - 1] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end] * rng.choice((1, 2, 30))
            case 3:
                changed[at:end] = rng.choice(_BYTES)
            case 4 if others:
                other = rng.choice(others)
                changed[at:] = other[rng.randint(0, len(other)) :]
            case 5 if words:
                changed[at:at] = rng.choice(words)
            case _:
                changed[at:end] = rng.choice(words or _BYTES)
    return bytes(changed)


def tree(value: Any, words: Sequence[str], rng: random.Random) -> Any:
    """A tree of maps, lists and plain values with one of its nodes changed; the one given stays as it is."""
    places = list(_places(value))
    path, node = rng.choice(places)
    match rng.randrange(5):
        case 0 if isinstance(node, dict) and node:
            new: Any = _renamed(node, words, rng)
        case 1 if isinstance(node, list) and node:
            new = [*node, rng.choice(node)] if rng.random() < 0.5 else node[:-1]
        case 2:
            new = rng.choice(places)[1]
        case 3 if rng.random() < 0.1:
            new = _nested(node, rng.choice((10, 200, 3000)))
        case _:
            new = rng.choice(STRANGE)
    return _with(value, path, new)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    if len(path) < 50:
        below = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, each in below:
            yield from _places(each, (*path, key))


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = _with(value[path[0]], path[1:], new)
    return changed


def _renamed(node: dict[Any, Any], words: Sequence[str], rng: random.Random) -> dict[Any, Any]:
    """A map that lacks a key, or has its value under another name."""
    gone = rng.choice(list(node))
    kept = {key: value for key, value in node.items() if key != gone}
    return kept if rng.random() < 0.3 else {**kept, rng.choice([*words, "", "b" * 70_000, b""]): node[gone]}


def _nested(node: Any, depth: int) -> Any:
    for _ in range(depth):
        node = [node]
    return node
