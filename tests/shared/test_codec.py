"""Messages survive the wire, and what is no message is refused by name."""

from __future__ import annotations

import dataclasses
import typing

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytween_wire import PROTOCOL
from keytween_wire.codec import decode, encode, error_info, number_of, pack_dataclass, unpack_dataclass
from keytween_wire.errors import (
    BadSetting,
    CheckpointUnusable,
    MessageError,
    MessageTooLarge,
    ProtocolMismatch,
    UnknownMessage,
)
from keytween_wire.messages import (
    MESSAGES,
    Colour,
    ErrorInfo,
    FrameMade,
    Hello,
    KeyframeImage,
    Limits,
    ListJobs,
    Message,
    MorphRequest,
    Submit,
    Watch,
    Welcome,
)

# What msgpack can carry; NaN equals nothing, itself included.
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
st.register_type_strategy(float, st.floats(allow_nan=False))

IMAGE = KeyframeImage("ab" * 32, ".png", 7, Colour.SRGB, "walk.png")
REQUEST = MorphRequest((IMAGE, IMAGE), ((0.25, 0.5),), engine="flow", seed=3)


def pack(value: object) -> bytes:
    return typing.cast(bytes, msgpack.packb(value))


@pytest.mark.parametrize("cls", MESSAGES.values(), ids=MESSAGES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_message_survives_the_wire(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(st.from_type(cls))
    received = decode(encode(message, number=5))
    assert received.message == message
    assert received.number == 5


@pytest.mark.parametrize("cls", MESSAGES.values(), ids=MESSAGES)
def test_messages_are_frozen(cls: type[Message]) -> None:
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_defaults_are_left_out() -> None:
    assert msgpack.unpackb(encode(Watch("a" * 32))[1]) == {"job_id": "a" * 32}


def test_blobs_travel_behind_the_message_in_order() -> None:
    assert decode([*encode(Submit("a" * 32, REQUEST)), b"one", b"two"]).blobs == (b"one", b"two")


def test_a_daemon_refuses_a_field_it_does_not_know() -> None:
    frames = [encode(ListJobs())[0], pack({"sharpness": 3})]
    with pytest.raises(MessageError, match="unknown field 'sharpness'"):
        decode(frames)


def test_a_client_ignores_a_field_it_does_not_know() -> None:
    body = typing.cast(dict[str, object], msgpack.unpackb(encode(Welcome(1, "0.1.0", pid=3))[1]))
    frames = [encode(Welcome(1, "0.1.0"))[0], pack({**body, "weather": "fine"})]
    assert decode(frames, strict=False).message == Welcome(1, "0.1.0", pid=3)


def test_an_unknown_message_is_named() -> None:
    with pytest.raises(UnknownMessage, match="dance"):
        decode([pack({"v": PROTOCOL, "type": "dance", "n": 1}), pack({})])


def test_another_protocol_version_is_refused_but_hello_is_heard() -> None:
    with pytest.raises(ProtocolMismatch):
        decode(encode(ListJobs(), protocol=PROTOCOL + 1))
    hello = Hello(oldest=PROTOCOL + 1, newest=PROTOCOL + 2)
    assert decode(encode(hello, protocol=PROTOCOL + 1)).message == hello


@pytest.mark.parametrize(
    "body",
    [
        {"job_id": 3},
        {"job_id": "a", "since": "x"},
        {"job_id": "a", "since": True},
        {"job_id": "a", "have": 3},
        {"job_id": "a", "have": ["x"]},
        {},
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        decode([encode(Watch("a"))[0], pack(body)])


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"", b""],
        [b"\xc1", b"\x80"],
        [pack([1]), pack({})],
        [pack({"v": 1}), pack({})],
        [pack({"v": 1, "type": "ping", "n": 1}), b"\x81"],
        [pack({"v": 1, "type": "ping", "n": 1}), pack({1: 2})],
        [pack({"v": 1, "type": "ping", "n": 1}), b"\x91" * 5000],
    ],
    ids=range(9),
)
def test_what_is_no_message_is_one_clear_error(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        decode(frames)
    assert number_of(frames) in (0, 1)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_noise_never_raises_anything_else(frames: list[bytes]) -> None:
    with pytest.raises((MessageError, ProtocolMismatch)):
        decode(frames)


def test_sizes_are_checked_before_anything_is_unpacked() -> None:
    limits = Limits(blob_bytes=10, body_bytes=100, keyframes=2)
    header = encode(ListJobs())[0]
    with pytest.raises(MessageTooLarge):
        decode([header, b"\x00" * 101], limits=limits)
    with pytest.raises(MessageTooLarge):
        decode([header, pack({}), b"\x00" * 11], limits=limits)
    with pytest.raises(MessageError, match="3 blobs"):
        decode([header, pack({}), b"", b"", b""], limits=limits)


def test_a_straight_path_is_not_mentioned_so_that_older_daemons_still_understand() -> None:
    assert b"path" not in pack_dataclass(REQUEST)
    arc = dataclasses.replace(REQUEST, path="arc")
    assert arc != REQUEST
    assert unpack_dataclass(MorphRequest, pack_dataclass(arc)) == arc


def test_a_path_that_is_not_known_is_refused_with_the_choices() -> None:
    with pytest.raises(BadSetting, match="straight, arc"):
        dataclasses.replace(REQUEST, path="wavy").check()
    with pytest.raises(BadSetting, match="full, draft"):
        dataclasses.replace(REQUEST, effort="none").check()


def test_a_request_is_kept_as_it_was() -> None:
    assert unpack_dataclass(MorphRequest, pack_dataclass(REQUEST)) == REQUEST


def test_the_name_of_a_keyframe_changes_no_pixel_and_so_no_request() -> None:
    renamed = dataclasses.replace(REQUEST, keyframes=(dataclasses.replace(IMAGE, name="run.png"), IMAGE))
    assert renamed == REQUEST


@pytest.mark.parametrize("since", [2**63, 2**64 - 1])
def test_a_number_that_no_store_keeps_is_refused(since: int) -> None:
    with pytest.raises(MessageError, match="more than 64 bits"):
        decode([encode(Watch("a"))[0], pack({"job_id": "a", "since": since})])


def test_keys_that_are_no_text_are_unknown_fields_like_others() -> None:
    with pytest.raises(MessageError, match="unknown field"):
        decode([encode(ListJobs())[0], pack({b"": 1, "sharpness": 3})])


def test_a_header_over_its_limit_is_not_unpacked_to_find_its_number() -> None:
    header = pack({"v": PROTOCOL, "type": "ping", "n": 7, "more": "x" * 2000})
    assert number_of([header, pack({})]) == 0


def test_half_a_character_stops_no_message() -> None:
    told = error_info(CheckpointUnusable(name="\udcff.safetensors", detail="\ud800"))
    values = unpack_dataclass(ErrorInfo, pack_dataclass(told)).values
    assert values == {"name": "\\udcff.safetensors", "detail": "\\ud800"}


def test_numbers_of_a_frame_event_arrive_as_numbers() -> None:
    event = FrameMade("a" * 32, 4, 2, 0, 1, "d", ".png", 9)  # a position of 1 is packed as an integer
    assert decode(encode(event)).message == event
