# SPDX-License-Identifier: Apache-2.0
"""Which files of a checkpoint are read for its weights: safetensors alone, proved by their bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath

PICKLED = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
"""Suffixes of weights that a library would unpickle, which can run code."""

_LONGEST_HEADER = 100 << 20


def fault(part: Path, stem: str) -> str:
    """Why the weights named `stem` in a part's folder are not read, as "its <part> ..."; empty: they are.

    A file counts by its bytes, not by its name, and an index may name plain safetensors beside it alone.
    """
    if (part / "adapter_config.json").exists():
        return "has an adapter beside it, which is not read"
    plain, index = part / f"{stem}.safetensors", part / f"{stem}.safetensors.index.json"
    if plain.exists():
        files: Iterable[Path] = (plain,)
    elif index.exists():
        names = _shards(index)
        if not names:
            return f"has no readable {index.name}"
        strange = [name for name in names if PurePath(name).name != name or "\\" in name]
        if strange or any(PurePath(name).suffix != ".safetensors" for name in names):
            return "has an index that names other files than safetensors beside it; none is loaded"
        files = [part / name for name in names]
    else:
        return lack(part, stem)
    for file in files:
        # Not Path.is_file(), which raises for a name that is too long.
        if not os.path.isfile(file) or not is_safetensors(file):
            return f"has a {file.name} that is cut off or no safetensors file"
    return ""


def lack(part: Path, stem: str) -> str:
    """What a part without plain weights has instead."""
    suffixes = {file.suffix for file in part.iterdir()} if part.is_dir() else set[str]()
    if ".safetensors" in suffixes:
        return f"has a variant of the weights, but no {stem}.safetensors"
    if suffixes & PICKLED:
        return f"has pickled weights, which are never loaded, and no {stem}.safetensors"
    return f"has no {stem}.safetensors"


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names; none where it makes no sense."""
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        named = json.loads(index.read_text("utf-8"))["weight_map"].values()
        return sorted({str(name) for name in named})
    return []


def is_safetensors(file: Path) -> bool:
    """Whether the file's header is one of safetensors and fits the file's size."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
            return False
        with suppress(ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            header = json.loads(stream.read(length))
            ends = [int(t["data_offsets"][1]) for key, t in header.items() if key != "__metadata__"]
            return max(ends, default=0) + 8 + length == size
    return False
