"""A process that makes the shots it is told to, one after the other: `python -m keytween.shots.worker`.

The first line of standard input says how, each further one is a shot; a line of standard output answers. When
standard input closes, the process ends at once, however the batch died.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from keytween.config import load
from keytween.shots.shot import Shot
from keytween.shots.unit import Maker
from keytween_wire.errors import KeytweenError, ShotBusy


def main() -> None:
    """The process's entry."""
    answers = _own_output()
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    first = orders.get()
    results = Path(first.pop("results"))
    maker = Maker(load(), results, **first)
    while True:
        _make(maker, Shot.from_json(orders.get()), answers)


def _own_output() -> TextIO:
    """Standard output for our answers alone: what libraries print goes to the error output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return answers


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


def _make(maker: Maker, shot: Shot, answers: TextIO) -> None:
    def say(**values: object) -> None:
        answers.write(json.dumps({"shot": shot.id, **values}) + "\n")

    say(kind="progress", share=0.0, phase="starting")
    try:
        record, made = maker.make(shot, lambda share, phase: say(kind="progress", share=share, phase=phase))
        say(kind="done" if made else "unchanged", record=record)
    except ShotBusy as error:
        say(kind="busy", code=error.code, values=error.values)
    except KeytweenError as error:
        say(kind="failed", code=error.code, values=error.values)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:  # noqa: BLE001  one bad shot never ends the batch
        found = KeytweenError(detail=f"{type(error).__name__}: {error}")
        say(kind="failed", code=found.code, values=found.values)


if __name__ == "__main__":
    main()
