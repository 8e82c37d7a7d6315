"""What somebody who watches a batch wants of it: a shot cancelled, or tried again.

Small files that the batch takes, so that it may run on another machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from keytween.placing import place

CANCEL, RETRY = "cancel", "retry"


def _folder(results: Path) -> Path:
    return results / ".wishes"


def wish(results: Path, shot: str, what: str) -> None:
    """Leaves a wish for the batch that is running with these results. Raises OSError."""
    _folder(results).mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(shot.encode()).hexdigest()
    place(json.dumps({"shot": shot, "what": what}).encode(), _folder(results) / f"{name}.json")


def take(results: Path) -> list[tuple[str, str]]:
    """The wishes since the last look, as shot and what; each is given once."""
    found: list[tuple[str, str]] = []
    for path in sorted(_folder(results).glob("*.json")):
        try:
            said = json.loads(path.read_text("utf-8"))
            path.unlink()
            found.append((str(said["shot"]), str(said["what"])))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
