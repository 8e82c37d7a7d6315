"""The allow-list answers 200 to a listed key in its own domain, and 400 to everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from zmq.utils import z85

from keytween.keys import CLIENTS, WORKERS, AllowList, KeyPair, authorised_keys

FRIEND, STRANGER = KeyPair.new(), KeyPair.new()


def ask(domain: bytes = CLIENTS, mechanism: bytes = b"CURVE", key: str = FRIEND.public) -> bytes:
    allowed = AllowList()
    allowed.allow(CLIENTS, FRIEND.public)
    request = [b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, z85.decode(key.encode())]
    answer = allowed.answer(request)
    assert answer[:2] == [b"1.0", b"7"]
    assert len(answer) == 6
    return answer[2]


def test_a_listed_key_is_let_in() -> None:
    assert ask() == b"200"


@pytest.mark.parametrize(
    "question",
    [
        {"key": STRANGER.public},
        {"domain": WORKERS},
        {"domain": b""},
        {"mechanism": b"NULL"},
        {"mechanism": b"PLAIN"},
    ],
    ids=str,
)
def test_everyone_else_is_refused(question: dict[str, object]) -> None:
    assert ask(**question) == b"400"


def test_a_request_without_credentials_is_refused() -> None:
    assert AllowList().answer([b"1.0", b"7", CLIENTS, b"", b"", b"NULL"])[2] == b"400"


def test_a_secret_is_not_in_the_repr() -> None:
    assert FRIEND.secret not in repr(FRIEND)


def test_authorised_keys_are_read_with_their_remarks(tmp_path: Path) -> None:
    assert authorised_keys(tmp_path) == set()
    (tmp_path / "authorised_keys").write_text(f"# mine\n{FRIEND.public} the laptop\n\nshort\n")
    assert authorised_keys(tmp_path) == {FRIEND.public}


def test_remarks_that_are_no_utf8_hide_no_key(tmp_path: Path) -> None:
    listed = b"\xe9cole " + FRIEND.public.encode() + b"\n" + FRIEND.public.encode() + b" \xe9cole\n"
    (tmp_path / "authorised_keys").write_bytes(listed)
    assert authorised_keys(tmp_path) == {FRIEND.public}
