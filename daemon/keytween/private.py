# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are this user's alone: made so, and refused where others have a hand in them."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path

from keytween_wire.errors import FileUnsafe

READABLE, WRITABLE, EVERYBODYS = 0o077, 0o022, stat.S_ISVTX | 0o002
"""What others must not have: of a secret any right, of what is no secret the right to change it."""


def refuse_others(path: Path, *, forbidden: int = READABLE) -> None:
    """Raises FileUnsafe where somebody else owns the file, or has one of the `forbidden` rights."""
    if sys.platform == "win32":
        return
    info = path.stat()
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & forbidden:
        raise FileUnsafe(name=path)


def own_folder(folder: Path) -> None:
    """Makes the folder, or takes others' rights to it away.

    Raises FileUnsafe where it is somebody else's, or meant for everybody, as /tmp is.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if sys.platform == "win32":
        return
    refuse_others(folder, forbidden=EVERYBODYS)
    if stat.S_IMODE(folder.stat().st_mode) & READABLE:
        folder.chmod(0o700)


def opener(path: str, flags: int) -> int:
    """For `open`: a new file is this user's alone."""
    return os.open(path, flags, 0o600)


def write(text: str, path: Path, *, replace: bool = True) -> None:
    """Writes the file for this user alone, whole or not at all; FileExistsError where it may not replace."""
    own_folder(path.parent)
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
