# SPDX-License-Identifier: Apache-2.0
"""A zip for a bug report: findings, versions, settings, log and job table, no pictures, words or keys."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from keytween.authorised import AuthorisedKeys
from keytween.config import Config
from keytween.cover import Cover, words_of
from keytween.doctor import Finding, examine
from keytween.jobs.folder import translate
from keytween.jobs.store import STORE, Sight, look
from keytween.keys import CLIENT_KEY, SERVER_KEY
from keytween.log_file import files_of
from keytween.logs import FIELDS, OUTPUT
from keytween.private import opener
from keytween_wire.connection import Connection
from keytween_wire.errors import BadSetting, KeytweenError
from keytween_wire.messages import JobInfo, MorphRequest

LOG_BYTES, OUTPUT_BYTES = 4 << 20, 256 << 10
"""How much of the end of the log, and of what was printed beside it, goes into the bundle."""
MOST_JOBS = 1000
_SECRET_NAME = re.compile(r"(?i)token|secret|passw|credential|api_?key|auth")
_LEFT_ALONE = (*FIELDS, "job")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle, and what it is in a few words."""

    name: str
    holds: str
    data: bytes


def write(config: Config, path: Path) -> list[Part]:
    """Makes the bundle at `path`, a file that must not be there yet; returns what is inside.

    Raises BadSetting, DiskFull or OutputUnwritable.
    """
    parts = collect(config)
    try:
        with (
            open(path, "xb", opener=opener) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for part in parts:
                archive.writestr(part.name, part.data)
    except FileExistsError as error:
        raise BadSetting(name="bundle", value=path, detail="there is such a file already") from error
    except OSError as error:
        raise translate(error, path.parent) from error
    return parts


def collect(config: Config) -> list[Part]:
    """The bundle's files; the first of them says what the others are."""
    sight, trouble = _look(config)
    cover = _cover(config, sight)
    parts = [
        Part("doctor.json", "what `keytween doctor` finds", _json(_findings(examine(config), cover))),
        Part("versions.json", "Python, the system, and every package that is installed", _json(_versions())),
        Part("settings.json", "the settings in force", _json(_settings(config, cover))),
        Part(
            "jobs.json", "the job table: states and figures, hashes for names", _json(_jobs(sight, trouble))
        ),
        *_logs(config, cover),
    ]
    return [Part("README.txt", "this list", _list(parts).encode()), *parts]


def default_name() -> str:
    """What a bundle is called that was given no name."""
    return f"keytween-report-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"


# ---- what is kept out


def _look(config: Config) -> tuple[Sight | None, str]:
    try:
        return look(config.state / STORE), ""
    except KeytweenError as error:
        return None, error.code


def _cover(config: Config, sight: Sight | None) -> Cover:
    """Covers every key there is, every word of every job, and where and whose this is."""
    words = set(_keys(config)) | {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for job, request in sight.jobs if sight else ():
        words |= {job.label} | (words_of(request) if request else set())
        words |= set(job.error.values.get("name", "").split("\n")) if job.error else set()
    cover = Cover.of_this_user(word for word in words if len(word) > 1)
    cover.places |= {
        str(config.state): "[state folder]",
        str(config.connection.parent): "[connection folder]",
        sys.prefix: "[environment]",
        str(Path.cwd()): "[current folder]",
    }
    cover.places.pop(os.sep, None)
    return cover


def _keys(config: Config) -> Iterator[str]:
    with suppress(KeytweenError, OSError, ValueError):
        for guest in AuthorisedKeys(config.state).guests():
            yield from (guest.key, guest.name)
    for name in (SERVER_KEY, CLIENT_KEY):
        # Not KeyPair.kept, which would make one.
        with suppress(OSError, ValueError):
            yield from (config.state / name).read_text("utf-8").split()
    with suppress(KeytweenError):
        connection = Connection.load(config.connection)
        yield from (connection.client_secret, connection.client_key, connection.server_key)


# ---- what is inside


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, default=str).encode()


def _findings(findings: Iterable[Finding], cover: Cover) -> object:
    return _covered([finding.as_json() for finding in findings], cover)


def _covered(value: Any, cover: Cover) -> Any:
    """The same with each text covered; the names of fields stay."""
    if isinstance(value, str):
        return cover(value)
    if isinstance(value, Mapping):
        return {
            name: inner if name in _LEFT_ALONE else _covered(inner, cover) for name, inner in value.items()
        }
    return [_covered(inner, cover) for inner in value] if isinstance(value, list) else value


def _versions() -> dict[str, Any]:
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    packages = dict(sorted(found.items(), key=lambda item: item[0].lower()))
    return {"python": sys.version, "platform": sys.platform, "packages": packages}


def _settings(config: Config, cover: Cover) -> dict[str, Any]:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {n: cover(str(v)) if isinstance(v, str | Path) else v for n, v in values.items()}


def _jobs(sight: Sight | None, trouble: str) -> dict[str, Any]:
    if sight is None:
        return {"store": trouble or "there is none"}
    key = secrets.token_bytes(
        32
    )  # forgotten with this: equal names are equal in one bundle, and no more is said
    return {
        "schema": sight.schema,
        "rows": sight.rows,
        "states": Counter(job.state.value for job, _ in sight.jobs),
        "jobs": [_job(job, request, key) for job, request in sight.jobs[:MOST_JOBS]],
    }


def _job(job: JobInfo, request: MorphRequest | None, key: bytes) -> dict[str, Any]:
    told = {name: value for name, value in asdict(job).items() if name not in ("label", "error")}
    told |= {"state": job.state.value, "label": _hash(job.label, key)}
    told["error_code"] = job.error.code if job.error else None
    return told | ({"request": _request(request, key)} if request else {})


def _request(request: MorphRequest, key: bytes) -> dict[str, Any]:
    told = {n: v for n, v in asdict(request).items() if n not in ("keyframes", "diffusion")}
    told["keyframes"] = [
        {
            "picture": _hash(image.digest, key),
            "name": _hash(image.name, key),
            "suffix": image.suffix[:6],
            "frame": image.frame,
            "colour": image.colour.value,
        }
        for image in request.keyframes
    ]
    told["diffusion"] = {
        n: _masked(v, key) for n, v in asdict(request.diffusion).items() if n != "reschedule"
    }
    told["diffusion"]["reschedule"] = request.diffusion.reschedule
    return told


def _masked(value: object, key: bytes) -> object:
    if isinstance(value, str):
        return _hash(value, key)
    return [_hash(str(one), key) for one in value] if isinstance(value, tuple | list) else value


def _hash(text: str, key: bytes) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:12] if text else ""


def _logs(config: Config, cover: Cover) -> Iterator[Part]:
    left = LOG_BYTES
    for file in reversed(files_of(config.log)):
        data = _end(file, left)
        left -= len(data)
        if data:
            yield Part(file.name, "the log of daemon and workers", _log(data, cover))
    for name, holds in (
        (OUTPUT, "what libraries printed, and where a process was when it crashed"),
        ("start.log", "what the daemon said when it was started"),
    ):
        if data := _end(config.state / name, OUTPUT_BYTES):
            yield Part(name, holds, cover(data.decode("utf-8", "replace")).encode())


def _end(file: Path, most: int) -> bytes:
    """The whole lines at the end of a file, so many bytes of them at most; nothing where there is no file."""
    with suppress(OSError), file.open("rb") as stream:
        size = file.stat().st_size
        stream.seek(max(0, size - most))
        data = stream.read(most)
        return data if size <= most else data[data.find(b"\n") + 1 :]
    return b""


def _log(data: bytes, cover: Cover) -> bytes:
    text = data.decode("utf-8", "replace")
    cover = cover.narrowed(text)
    return "".join(f"{_line(line, cover)}\n" for line in text.splitlines()).encode()


def _line(line: str, cover: Cover) -> str:
    try:
        return json.dumps(_covered(json.loads(line), cover))
    except ValueError:
        return cover(line)


def _list(parts: Sequence[Part]) -> str:
    told = "".join(f"{part.name}: {part.holds}\n" for part in parts)
    return (
        "A report by `keytween doctor --bundle`. Look through it before you show it to anybody.\n\n"
        f"{told}\nNot inside: pictures, prompts, names of files and jobs, keys. What was taken out of\n"
        "a text is [hidden]; ~ is the home folder.\n"
    )
