"""The next version's daemon, as far as one can tell: a protocol more, and a field more in what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_CHANGES = """
import keytween_wire
keytween_wire.PROTOCOL += 1
keytween_wire.__version__ = "9.9"
import msgpack
from keytween_wire import codec
plain = codec.encode

def with_more(value):
    if isinstance(value, list):
        return [with_more(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {"weather": "fine"} | {k: v if k == "values" else with_more(v) for k, v in value.items()}

def encode(*message, **how):
    header, body = plain(*message, **how)
    return [header, msgpack.packb(with_more(msgpack.unpackb(body)))]

codec.encode = encode
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every daemon that is started from now on one of the next version."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_CHANGES)
    others = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), others))))
