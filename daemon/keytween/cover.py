# SPDX-License-Identifier: Apache-2.0
"""Takes out of a text what is nobody's business: keys, tokens, the user, and the artist's own words."""

from __future__ import annotations

import getpass
import json
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from keytween_wire.messages import MorphRequest

HIDDEN = "[hidden]"
SHORT = 12
_TOKENS = re.compile(
    r"(?i)\b(?:hf|sk|gh[opsur]|xox[abps]|github_pat|glpat)[-_][\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=://)[^\s/@]+@"
    r"|(?:\b|_)(?:[\w-]*token|secret|passw(?:or)?d|api[-_]?key|authori[sz]ation)[\"']?\s*[=:]"
    r"\s*[\"']?(?:(?:bearer|basic) +)?[^\s\"',]+"
    r"|\b(?:bearer|basic) +[\w.+/=~-]{8,}"
)
_HOMES = re.compile(r"(?i)([/\\](?:home|users)[/\\])[^/\\\s\"':]+")
_KEYS = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40,}")
"""Runs of the letters that CURVE keys are written with (Z85, 40 of them)."""
_KEY_MARKS = (
    re.compile("[a-z]"),
    re.compile("[A-Z]"),
    re.compile("[0-9]"),
    re.compile(r"[\^!*?&<>@%$#=+{}]"),
)


@dataclass(slots=True)
class Cover:
    """Covers these words wherever they stand, and whatever looks like a key or a token, in any text.

    `places` are names and folders of this machine, with what is said instead: the longest goes first.
    """

    words: frozenset[str] = frozenset()
    places: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of_this_user(cls, words: Iterable[str] = ()) -> Cover:
        """One that says `~` for the home folder, and neither the user's name nor the machine's."""
        places = {str(Path.home()): "~"} if len(str(Path.home())) > 1 else {}
        with suppress(OSError, KeyError, ImportError):
            places[getpass.getuser()] = "user"
        for name in (platform.node(), platform.node().partition(".")[0]):
            places.setdefault(name, "machine")
        return cls(frozenset(words), {place: said for place, said in places.items() if place})

    @contextmanager
    def hiding(self, words: Iterable[str]) -> Iterator[None]:
        """Covers these words as well for a while."""
        before, self.words = self.words, self.words | frozenset(words)
        try:
            yield
        finally:
            self.words = before

    def narrowed(self, text: str) -> Cover:
        """The same for parts of this text alone: with thousands of words it is far quicker."""
        there = (word for word in self.words if any(spelled in text for spelled in _spellings(word)))
        return Cover(frozenset(there), self.places)

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self.words:
            text = _pattern(self.words).sub(HIDDEN, text)
        text = _TOKENS.sub(HIDDEN, text)
        text = _KEYS.sub(lambda found: HIDDEN if _is_like_a_key(found[0]) else found[0], text)
        if self.places:
            text = _pattern(frozenset(self.places)).sub(lambda found: self.places.get(found[0], HIDDEN), text)
        return _HOMES.sub(r"\1user", text)


def _spellings(word: str) -> set[str]:
    """How Python and JSON write it."""
    return {word, repr(word)[1:-1], ascii(word)[1:-1], json.dumps(word)[1:-1]}


@lru_cache(maxsize=16)
def _pattern(words: frozenset[str]) -> re.Pattern[str]:
    """Finds any of them, the longest first. A short one counts only where it stands alone."""
    spelled = {spelling for word in words if word.strip() for spelling in _spellings(word)}
    return re.compile("|".join(map(_alone, sorted(spelled, key=len, reverse=True))) or "(?!)")


def _alone(word: str) -> str:
    if len(word) > SHORT or not word.isalnum():
        return re.escape(word)
    return rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"


def _is_like_a_key(text: str) -> bool:
    return all(mark.search(text) for mark in _KEY_MARKS)


def words_of(request: MorphRequest) -> frozenset[str]:
    """What the artist wrote into a request: prompts, and the names of pictures, LoRAs and checkpoint."""
    diffusion = request.diffusion
    names = [*(image.name for image in request.keyframes), *diffusion.loras, diffusion.checkpoint]
    words = {*names, *map(_last_part, names), *diffusion.prompts, diffusion.negative_prompt}
    return frozenset(words - {""})


def _last_part(name: str) -> str:
    kind = PureWindowsPath if "\\" in name else PurePosixPath
    return kind(name).name
