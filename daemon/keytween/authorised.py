# SPDX-License-Identifier: Apache-2.0
"""The keys of other machines that may connect: the file `authorised_keys`, read again when it changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keytween import private
from keytween.keys import check_key, is_key
from keytween_wire.errors import BadSetting

FILE = "authorised_keys"


@dataclass(frozen=True, slots=True)
class Guest:
    """A key that may connect, and whose it is."""

    key: str
    name: str


class AuthorisedKeys:
    """The list in a state folder. A key begins a line, a name may follow; other lines are remarks."""

    def __init__(self, state: Path) -> None:
        self.path = state / FILE
        self._seen: tuple[int, ...] | None = None

    def guests(self) -> list[Guest]:
        """Who may connect; raises FileUnsafe where others may change the list."""
        return [guest for line in self._lines() if (guest := _guest(line))]

    def keys(self) -> set[str]:
        """Their keys."""
        return {guest.key for guest in self.guests()}

    def has_changed(self) -> bool:
        """Whether the file is another than at the last time that this was asked."""
        seen, self._seen = self._seen, self._look()
        return seen != self._seen

    def allow(self, name: str, key: str) -> None:
        """Lets a key in; raises BadSetting for what is no key, and where name or key is another's."""
        check_key(key)
        name = " ".join(name.split())
        if not name or not name.isprintable():
            raise BadSetting(name="NAME", value=name, detail="it must say whose key this is")
        for guest in self.guests():
            if guest == Guest(key, name):
                return
            if name == guest.name:
                raise BadSetting(name="NAME", value=name, detail="it has another key: forget that one first")
            if key == guest.key:
                raise BadSetting(name="KEY", value=key, detail=f"it is allowed already, as {guest.name}")
        self._write([*self._lines(), f"{key} {name}"])

    def forget(self, name: str) -> Guest:
        """Lets a key in no longer, by its name or itself; raises BadSetting where there is none."""
        guests = self.guests()
        gone = next((guest for guest in guests if name in (guest.name, guest.key)), None)
        if gone is None:
            known = ", ".join(guest.name for guest in guests) or "nobody"
            raise BadSetting(name="NAME", value=name, detail=f"it is not on the list, which has {known}")
        self._write([line for line in self._lines() if _key(line) != gone.key])
        return gone

    def _look(self) -> tuple[int, ...]:
        try:
            info = self.path.stat()
        except OSError:
            return ()
        return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_mode, info.st_uid

    def _lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        private.refuse_others(self.path, forbidden=private.WRITABLE)
        # Remarks may be in any encoding.
        return self.path.read_text("utf-8", errors="replace").splitlines()

    def _write(self, lines: list[str]) -> None:
        private.write("".join(f"{line}\n" for line in lines), self.path)


def _key(line: str) -> str:
    """The key that a line begins with, or nothing."""
    # Z85 uses '#' itself, so it cannot begin a remark.
    word = line.split(maxsplit=1)[0] if line.strip() else ""
    return word if is_key(word) else ""


def _guest(line: str) -> Guest | None:
    key = _key(line)
    return Guest(key, line.split(key, 1)[1].strip().lstrip("#").strip()) if key else None
