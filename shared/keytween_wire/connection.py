"""The connection file: where the daemon listens and the keys to talk to it, readable by its user alone."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from keytween_wire import PROTOCOL, __version__
from keytween_wire.errors import ConnectionFileUnsafe, DaemonError, DaemonNotRunning

ENVIRONMENT = "KEYTWEEN_CONNECTION"


def connection_path() -> Path:
    """Where the daemon of this user writes its connection file; KEYTWEEN_CONNECTION overrides it."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given) if given else _runtime_folder() / "keytween" / "connection.json"


def _runtime_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) if runtime else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@dataclass(frozen=True, slots=True)
class Connection:
    """The address and CURVE keys (Z85 text) of a daemon; `pid` and `boot_id` tell one start from another.

    A file of `keytween keys join` has no `pid`: its daemon is on another machine and does not keep the file.
    """

    endpoint: str
    server_key: str
    client_key: str
    client_secret: str = field(repr=False)
    pid: int = 0
    boot_id: str = ""
    protocol: int = PROTOCOL
    version: str = __version__

    @classmethod
    def load(cls, path: Path | str | None = None) -> Connection:
        """The connection in the file; raises DaemonNotRunning, ConnectionFileUnsafe or DaemonError."""
        file = Path(path) if path else connection_path()
        try:
            _refuse_strangers(file)
            values = json.loads(file.read_text("utf-8"))
        except FileNotFoundError as error:
            raise DaemonNotRunning() from error
        except (OSError, ValueError, RecursionError) as error:
            raise DaemonError(detail=f"its connection file {file} cannot be read") from error
        return cls._from(values, file)

    @property
    def is_joined(self) -> bool:
        """Whether the daemon is on another machine; at the far end of a tunnel too."""
        return not self.pid

    @classmethod
    def _from(cls, values: object, file: Path) -> Connection:
        try:
            known = {k: v for k, v in cast(dict[str, str], values).items() if k in cls.__slots__}
            found = cls(**known)  # type: ignore[arg-type]
        except (TypeError, AttributeError) as error:
            raise DaemonError(detail=f"its connection file {file} is not complete") from error
        if not found._makes_sense():
            raise DaemonError(detail=f"its connection file {file} makes no sense")
        return found

    def _makes_sense(self) -> bool:
        """Whether every value is of its kind: a file may have been damaged, or written by hand."""
        values = asdict(self)
        texts = [values[name] for name in ("endpoint", "boot_id", "version")]
        return (
            all(type(values[name]) is int for name in ("pid", "protocol"))
            and all(isinstance(text, str) and text.isascii() and text.isprintable() for text in texts)
            and self.endpoint.startswith("tcp://")
            and all(_is_key(key) for key in (self.server_key, self.client_key, self.client_secret))
        )

    def save(self, path: Path | str | None = None) -> Path:
        """Writes the file for this user alone, at once or not at all."""
        file = Path(path) if path else connection_path()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = file.with_name(f".{file.name}.{os.getpid()}")
        unfinished.unlink(missing_ok=True)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(asdict(self), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
        return file


_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def _is_key(text: object) -> bool:
    """Whether it is a CURVE key in Z85: 40 characters, each five of them a number of 32 bits."""
    if not isinstance(text, str) or len(text) != 40 or not set(text) <= set(_Z85):
        return False
    fives = (text[at : at + 5] for at in range(0, 40, 5))
    return all(sum(_Z85.index(c) * 85**n for n, c in enumerate(reversed(five))) < 2**32 for five in fives)


def _refuse_strangers(file: Path) -> None:
    if sys.platform == "win32":
        return
    info = file.stat()
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise ConnectionFileUnsafe(name=file)
