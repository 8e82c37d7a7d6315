# SPDX-License-Identifier: Apache-2.0
"""What a disk holds after power was lost: writes recorded by strace, replayed up to any of them.

Of a file, what was written since its last fsync may be lost; of a folder, what was made, renamed or deleted
in it since its last fsync.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,lseek,fsync,fdatasync,rename,"
    "renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,sync_file_range"
)
KNOWN = {"open", "openat", "write", "pwrite64", "ftruncate", "lseek", "fsync", "fdatasync"}
KNOWN |= {"rename", "unlink", "unlinkat", "mkdir", "rmdir"}
"""Those of them that are replayed; any other one below the folder is an error."""
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"^(\d+)<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Step:
    """One call that changed something below the folder, or an acknowledgement (`told`, in `data`)."""

    kind: str
    path: str
    data: bytes = b""
    offset: int = 0
    target: str = ""


def record(command: list[str], trace: Path, state: Path, marks: Path) -> list[Step]:
    """Runs a command under strace; what it did below `state`, and what it told in `marks`, in order."""
    watched = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o", str(trace)]
    subprocess.run([*watched, *command], check=True, timeout=120)
    return list(_steps(trace, str(state), str(marks)))


def _steps(trace: Path, state: str, marks: str) -> Iterator[Step]:
    positions: dict[str, int] = {}
    for line in trace.read_text("latin-1").splitlines():
        if not (call := _CALL.match(line)) or int(call[3]) < 0:
            continue
        name, said = call[1], call[2]
        handle = _FILE.match(_plain(said.split(",")[0])) if not said.startswith('"') else None
        where = handle[2] if handle else ""
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(said)]
        if name == "write" and where == marks:
            yield Step("told", "", texts[0].rstrip())
            continue
        named = [text.decode("latin-1") for text in texts] if name not in ("write", "pwrite64") else []
        if name in ("unlinkat", "openat") and not named[0].startswith("/"):
            base = where or said.split("<")[1].split(">")[0]
            named[0] = f"{_plain(base)}/{named[0]}"
        touched = [place for place in (where if not named else "", *named) if place.startswith(f"{state}/")]
        if not touched and not (name in ("fsync", "fdatasync") and where == state):
            continue
        assert name in KNOWN, f"{name} is not replayed: {line[:200]}"
        yield from _step(name, said, where, named, texts, positions, int(call[3]))


def _plain(said: str) -> str:
    """A path as it is, of which strace writes some in hexadecimal digits."""
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda m: bytes.fromhex(m[0].replace("\\x", "")).decode(), said)


def _step(
    name: str, said: str, where: str, named: list[str], texts: list[bytes], at: dict[str, int], result: int
) -> Iterator[Step]:
    if name in ("open", "openat"):
        at[named[0]] = 0
        if "O_CREAT" in said:
            yield Step("create", named[0])
        if "O_TRUNC" in said:
            yield Step("truncate", named[0])
    elif name == "lseek":
        at[where] = result
    elif name == "write":
        yield Step("write", where, texts[0][:result], at[where])
        at[where] += result
    elif name == "pwrite64":
        yield Step("write", where, texts[0][:result], int(said.rsplit(",", 1)[1]))
    elif name == "ftruncate":
        yield Step("truncate", where, offset=int(said.rsplit(",", 1)[1]))
    elif name in ("fsync", "fdatasync"):
        yield Step("sync", where)
    elif name == "rename":
        yield Step("rename", named[0], target=named[1])
    elif name in ("unlink", "unlinkat", "rmdir"):
        yield Step("remove", named[0])
    else:
        yield Step("folder", named[0])


# ---- the disk


@dataclass(slots=True)
class _File:
    now: bytes = b""
    durable: bytes = b""


@dataclass(slots=True)
class _Folder:
    now: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)


Tree = dict[str, "bytes | Tree"]
LOSSES: dict[str, tuple[bool, bool]] = {
    "nothing": (True, True),
    "all that was not synced": (False, False),
    "data under names that stayed": (True, False),
    "names of data that stayed": (False, True),
}
"""What power loss costs: whether names stay that were not synced, and whether data does."""


class Disk:
    """Takes steps, and tells what would be there if the power failed now."""

    def __init__(self, root: str) -> None:
        self._root, self._top = root, _Folder()

    def take(self, step: Step) -> None:
        """One step more."""
        if step.kind == "told":
            return
        if step.path == self._root:
            self._top.durable = dict(self._top.now)
            return
        folder, name = self._place(step.path)
        node = folder.now.get(name)
        if step.kind == "create":
            folder.now.setdefault(name, _File())
        elif step.kind == "folder":
            folder.now[name] = _Folder()
        elif step.kind == "remove":
            del folder.now[name]
        elif step.kind == "rename":
            to, new = self._place(step.target)
            to.now[new] = folder.now.pop(name)
        elif step.kind == "sync":
            assert node is not None
            node.durable = bytes(node.now) if isinstance(node, _File) else dict(node.now)  # type: ignore[assignment]
        elif isinstance(node, _File):
            _change(node, step)

    def _place(self, path: str) -> tuple[_Folder, str]:
        *folders, name = path.removeprefix(f"{self._root}/").split("/")
        place = self._top
        for folder in folders:
            place = place.now[folder]  # type: ignore[assignment]
        return place, name

    def after(self, *, names: bool, data: bool) -> Tree:
        """What is there then."""

        def seen(folder: _Folder) -> Tree:
            entries = folder.now if names else folder.durable
            return {
                name: seen(node) if isinstance(node, _Folder) else node.now if data else node.durable
                for name, node in sorted(entries.items())
            }

        return seen(self._top)


def _change(file: _File, step: Step) -> None:
    if step.kind == "truncate":
        file.now = file.now[: step.offset].ljust(step.offset, b"\0")
    else:
        end = step.offset + len(step.data)
        file.now = file.now[: step.offset].ljust(step.offset, b"\0") + step.data + file.now[end:]


def lay_out(tree: Tree, folder: Path) -> None:
    """Makes these files and folders."""
    folder.mkdir()
    for name, node in tree.items():
        if isinstance(node, bytes):
            (folder / name).write_bytes(node)
        else:
            lay_out(node, folder / name)


def losses(
    steps: list[Step], root: str, *, ignoring: Callable[[Step], bool]
) -> Iterator[tuple[int, str, Tree]]:
    """Every different disk that power loss may leave, after how many steps, and what it has cost.

    `ignoring` picks steps that do nothing, as an fsync that a careless system swallows.
    """
    disk, told = Disk(root), 0
    seen: set[tuple[int, str]] = set()
    for number, step in enumerate(steps):
        if not ignoring(step):
            disk.take(step)
        told += step.kind == "told"
        for loss, (names, data) in LOSSES.items():
            tree = disk.after(names=names, data=data)
            known = (told, str(hash(repr(tree))))
            if known not in seen:
                seen.add(known)
                yield number + 1, loss, tree
