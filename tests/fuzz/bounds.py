# SPDX-License-Identifier: Apache-2.0
"""What may come out of reading strangers' bytes: a value, or one of our own errors. The rest is a finding."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from keytween_wire.codec import error_info, pack_dataclass, unpack_dataclass
from keytween_wire.errors import KeytweenError
from keytween_wire.messages import ErrorInfo

T = TypeVar("T")

LONGEST_SENTENCE = 16_384
"""Characters: far more than a name and what is wrong with it. No file may fill a screen with itself."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate"} | {
    "os.chmod",
    "os.utime",
    "shutil.rmtree",
}
_NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"} | {
    "pickle.find_class",
}


class Escaped(BaseException):
    """Bytes made the program do what reading never does. No `except Exception` hides it."""


@cache
def scratch() -> Path:
    """The one folder in which files may appear; whatever makes temporary files makes them there."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="keytween-fuzz-")))
    tempfile.tempdir = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def foreseen(work: Callable[[], T], only: type[KeytweenError] = KeytweenError) -> T | None:
    """What the work gives, None where it refused with an error of this family, fit for the wire."""
    try:
        return work()
    except only as error:
        check_error(error)
        return None


def check_error(error: KeytweenError) -> None:
    """Whether an error has a code of its own, a sentence of bearable length, and can travel."""
    assert type(error) is not KeytweenError, f"nobody foresaw {error}"
    assert not {"\x1b", "\r", "\0", "\x9b"} & set(f"{error}{error.advice}"), repr(str(error))
    assert len(str(error)) + len(error.advice) <= LONGEST_SENTENCE, f"{len(str(error))} characters"
    unpack_dataclass(ErrorInfo, pack_dataclass(error_info(error)))


def stay_inside() -> None:
    """From now on this process may change nothing outside its scratch folder, start nothing, call nobody."""
    sys.dont_write_bytecode = True
    inside = str(scratch())
    sys.addaudithook(lambda event, arguments: _judge(event, arguments, inside))


def _judge(event: str, arguments: tuple[object, ...], inside: str) -> None:
    if event in _NEVER:
        raise Escaped(f"{event} {arguments!r:.200}")
    if event == "open":
        path, _mode, flags = arguments
        if isinstance(flags, int) and flags & _WRITING:
            _check_place(event, path, inside)
    elif event in _CHANGES:
        # A number after the path is the open folder that it counts from: rmtree was judged before.
        named = [each for each in arguments if isinstance(each, str | bytes | os.PathLike)]
        counted = any(isinstance(each, int) and each >= 0 for each in arguments[1:])
        for path in () if counted and event in ("os.remove", "os.rmdir") else named:
            _check_place(event, path, inside)


def _check_place(event: str, path: object, inside: str) -> None:
    if isinstance(path, int) or path == os.devnull:
        return
    place = os.path.realpath(os.path.abspath(os.fsdecode(path)))  # type: ignore[arg-type]
    if place != inside and not place.startswith(inside + os.sep):
        raise Escaped(f"{event} of {place!r}")
