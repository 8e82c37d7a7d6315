"""Dataclass <-> msgpack frames, checked on the way in. Pictures travel behind as blobs, never inside.

A multipart message is `[header][body][blob]...`; header and body are msgpack maps. Nothing is ever
unpickled, and a value that does not fit the dataclass's own annotations is refused.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack  # pyright: ignore[reportMissingTypeStubs]  (it ships none)

from keytween_wire import OLDEST, PROTOCOL
from keytween_wire.errors import (
    KeytweenError,
    MessageError,
    MessageTooLarge,
    ProtocolMismatch,
    UnknownMessage,
)
from keytween_wire.messages import MESSAGES, ErrorInfo, Hello, Limits, Message

T = TypeVar("T")

HEADER_BYTES = 1024
_UNPACK: dict[str, Any] = {"strict_map_key": True, "max_ext_len": 0, "max_str_len": 65536, "max_bin_len": 0}
_NAMES = {cls: name for name, cls in MESSAGES.items()}


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it arrived: its blobs, the request number it answers (0 for an event), its protocol."""

    message: Message
    blobs: tuple[bytes, ...] = ()
    number: int = 0
    protocol: int = PROTOCOL

    @property
    def reply_to(self) -> int:
        """The number of the request that this answers, 0 for an event."""
        return self.number


def encode(message: Message, *, number: int = 0, protocol: int = PROTOCOL) -> list[bytes]:
    """The header and body frames of a message; blobs are appended by the caller."""
    header = {"v": protocol, "type": _NAMES[type(message)], "n": number}
    return [_pack(header), _pack(_plain(message))]


def decode(frames: Sequence[bytes], *, limits: Limits | None = None, strict: bool = True) -> Received:
    """The message in the frames of one multipart message.

    `strict` refuses unknown fields: an older daemon must not drop a setting that changes pixels. A
    client decodes with `strict=False`, so that a newer daemon may add fields. Raises ProtocolMismatch,
    UnknownMessage, MessageTooLarge or MessageError.
    """
    allowed = limits or Limits()
    _check_sizes(frames, allowed)
    name, number, protocol = _header(frames[0])
    cls = MESSAGES.get(name)
    if cls is None:
        raise UnknownMessage(name=name)
    body = _unpack(frames[1], "body")
    return Received(_build(cls, body, name, strict), tuple(frames[2:]), number, protocol)


def number_of(frames: Sequence[bytes]) -> int:
    """The request number of a message that may be undecodable otherwise; 0 when even that fails."""
    if not frames or len(frames[0]) > HEADER_BYTES:
        return 0
    try:
        number = _unpack(frames[0], "header").get("n", 0)
    except MessageError:
        return 0
    return number if isinstance(number, int) else 0


def pack_dataclass(value: object) -> bytes:
    """A dataclass as msgpack bytes, defaults left out: how the store keeps requests."""
    return _pack(_plain(value))


def unpack_dataclass(cls: type[T], data: bytes) -> T:
    """The dataclass that `pack_dataclass` wrote; raises MessageError."""
    return _build(cls, _unpack(data, cls.__name__), cls.__name__, strict=True)


def check_packed(data: bytes) -> None:
    """Whether it can be read at all, in a tenth of the time of `unpack_dataclass`; raises MessageError."""
    _unpack(data, "row")


def error_info(error: KeytweenError) -> ErrorInfo:
    """The error as it travels."""
    return ErrorInfo(error.code, dict(error.values))


def _check_sizes(frames: Sequence[bytes], limits: Limits) -> None:
    if len(frames) < 2:
        raise MessageError(detail=f"it has {len(frames)} parts, not a header and a body")
    if len(frames) - 2 > limits.keyframes:
        raise MessageError(detail=f"it has {len(frames) - 2} blobs, more than {limits.keyframes}")
    for name, frame, limit in (
        ("The header", frames[0], HEADER_BYTES),
        ("The message", frames[1], limits.body_bytes),
        *(("A picture", blob, limits.blob_bytes) for blob in frames[2:]),
    ):
        if len(frame) > limit:
            raise MessageTooLarge(name=name, size=len(frame), limit=limit)


def _header(frame: bytes) -> tuple[str, int, int]:
    header = _unpack(frame, "header")
    version, name, number = header.get("v"), header.get("type"), header.get("n", 0)
    if not (isinstance(version, int) and isinstance(name, str) and isinstance(number, int)):
        raise MessageError(detail="the header lacks its version, type or number")
    if not OLDEST <= version <= PROTOCOL and MESSAGES.get(name) is not Hello:
        raise ProtocolMismatch(ours=version, theirs=PROTOCOL, client_version="?", daemon_version="?")
    return name, number, version


def _pack(value: object) -> bytes:
    # A file's name may hold bytes that are no text, and JSON half a character: neither must stop a message.
    return cast(bytes, msgpack.packb(value, use_bin_type=True, unicode_errors="backslashreplace"))  # pyright: ignore[reportUnknownMemberType]


def _unpack(frame: bytes, what: str) -> dict[str, Any]:
    try:
        value = cast(object, msgpack.unpackb(frame, **_UNPACK))  # pyright: ignore[reportUnknownMemberType]
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise MessageError(detail=f"its {what} is not valid msgpack") from error
    if not isinstance(value, dict):
        raise MessageError(detail=f"its {what} is not a map")
    return cast(dict[str, Any], value)


def _plain(value: object) -> Any:
    """Plain msgpack types; a dataclass becomes a map without the fields that have their default."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if not _is_default(f, value)
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[object, ...], value)]
    return value


def _is_default(field: dataclasses.Field[Any], owner: object) -> bool:
    value = getattr(owner, field.name)
    if field.default is not dataclasses.MISSING:
        return value == field.default
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _build(cls: type[T], body: dict[str, Any], where: str, strict: bool) -> T:
    hints = _hints(cls)
    unknown = body.keys() - hints.keys()
    if unknown and strict:
        name = min(map(repr, unknown))
        raise MessageError(detail=f"{where} has an unknown field {name}; the sender is newer")
    values = {k: _value(hints[k], v, f"{where}.{k}", strict) for k, v in body.items() if k in hints}
    try:
        return cls(**values)
    except TypeError as error:
        raise MessageError(detail=f"{where} lacks a field") from error


def _value(hint: Any, value: Any, where: str, strict: bool) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint, value, where, strict)
    if origin is tuple:
        return _tuple(hint, value, where, strict)
    if origin is dict:
        return _mapping(value, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise MessageError(detail=f"{where} is not a map")
        return _build(cast(type[Any], hint), cast(dict[str, Any], value), where, strict)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value, where)
    return _scalar(hint, value, where)


def _optional(hint: Any, value: Any, where: str, strict: bool) -> Any:
    if value is None:
        return None
    (inner,) = (a for a in get_args(hint) if a is not type(None))
    return _value(inner, value, where, strict)


def _tuple(hint: Any, value: Any, where: str, strict: bool) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise MessageError(detail=f"{where} is not a list")
    inner = get_args(hint)[0]
    return tuple(_value(inner, item, where, strict) for item in cast(list[Any], value))


def _mapping(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise MessageError(detail=f"{where} is not a map")
    found = cast(dict[Any, Any], value)
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise MessageError(detail=f"{where} is not a map of text to text")
    return cast(dict[str, str], found)


def _member(hint: type[Enum], value: Any, where: str) -> Enum:
    try:
        return hint(value)
    except ValueError as error:
        choices = ", ".join(str(m.value) for m in hint)
        raise MessageError(detail=f"{where} is none of {choices}") from error


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise MessageError(detail=f"{where} is not {_ARTICLES.get(hint, 'what it should be')}")
    if hint is int and not _INT64[0] <= value <= _INT64[1]:
        raise MessageError(detail=f"{where} has more than 64 bits")
    return value


_INT64 = (-(2**63), 2**63 - 1)
"""What SQLite keeps; msgpack would carry one bit more."""
_ARTICLES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "yes or no"}
