"""Keeps the latest of what took long to make, as long as its memory is small."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 8
"""Four pairs: what was matched, and the stage that draws it."""
BYTES = 512 << 20


class Kept:
    """What was made before, by what it was made of; what was used least lately is forgotten."""

    def __init__(self, *, most: int = MOST, size: int = BYTES) -> None:
        self._most, self._size = most, size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What is kept under the key, None where nothing is."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keeps the value, and forgets others where all together are too many or too large."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._most or size_of(list(self._values.values())) > self._size:
            self._values.popitem(last=False)


def size_of(value: Any) -> int:
    """The bytes of all arrays in a value, each counted once."""
    owners = {id(a): a for a in (_owner(a) for a in _arrays(value))}
    return sum(a.nbytes for a in owners.values())


def _owner(array: NDArray[Any]) -> NDArray[Any]:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _arrays(value: Any) -> Iterator[NDArray[Any]]:
    if isinstance(value, np.ndarray):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, (list, tuple)):
        parts = list(value)
    elif is_dataclass(value):
        parts = [getattr(value, f.name) for f in fields(value)]
    elif hasattr(value, "__dict__"):
        parts = list(vars(value).values())
    for part in parts:
        yield from _arrays(part)
