"""The allow-list answers 200 to a listed key in its own domain, and 400 to everything else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from zmq.utils import z85

from keytween.authorised import AuthorisedKeys, Guest
from keytween.keys import CLIENTS, WORKERS, AllowList, KeyPair
from keytween_wire.errors import BadSetting, FileUnsafe

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
    listed = AuthorisedKeys(tmp_path)
    assert listed.guests() == []
    (tmp_path / "authorised_keys").write_text(f"# mine\n{FRIEND.public} # the laptop\n\nshort\n")
    assert listed.guests() == [Guest(FRIEND.public, "the laptop")]


def test_remarks_that_are_no_utf8_hide_no_key(tmp_path: Path) -> None:
    remarks = b"\xe9cole " + FRIEND.public.encode() + b"\n" + FRIEND.public.encode() + b" \xe9cole\n"
    (tmp_path / "authorised_keys").write_bytes(remarks)
    assert AuthorisedKeys(tmp_path).keys() == {FRIEND.public}


# ---- the list


def test_a_key_is_allowed_once_and_forgotten(tmp_path: Path) -> None:
    listed = AuthorisedKeys(tmp_path)
    listed.path.write_text("# by hand\n")
    listed.allow("anna's  laptop", FRIEND.public)
    listed.allow("anna's laptop", FRIEND.public)
    assert listed.path.read_text() == f"# by hand\n{FRIEND.public} anna's laptop\n"
    assert listed.path.stat().st_mode & 0o777 == 0o600
    listed.allow("ben", STRANGER.public)
    assert listed.forget("anna's laptop") == Guest(FRIEND.public, "anna's laptop")
    assert listed.forget(STRANGER.public).name == "ben"
    assert listed.path.read_text() == "# by hand\n"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("anna", STRANGER.public),
        ("ben", FRIEND.public),
        ("", STRANGER.public),
        ("ben\x1b", STRANGER.public),
        ("ben", STRANGER.public[1:]),
        ("ben", f"{STRANGER.public[1:]}'"),
        ("ben", f"{STRANGER.public[1:]}\n"),
    ],
    ids=range(7),
)
def test_what_would_confuse_the_list_is_refused(tmp_path: Path, name: str, key: str) -> None:
    listed = AuthorisedKeys(tmp_path)
    listed.allow("anna", FRIEND.public)
    with pytest.raises(BadSetting):
        listed.allow(name, key)
    with pytest.raises(BadSetting):
        listed.forget("ben")
    assert listed.guests() == [Guest(FRIEND.public, "anna")]


def test_a_name_cannot_bring_in_a_second_line(tmp_path: Path) -> None:
    listed = AuthorisedKeys(tmp_path)
    listed.allow(f"anna\n{STRANGER.public}", FRIEND.public)
    assert listed.keys() == {FRIEND.public}


def test_a_change_of_the_list_is_seen_once(tmp_path: Path) -> None:
    listed = AuthorisedKeys(tmp_path)
    listed.has_changed()
    assert not listed.has_changed()
    listed.allow("anna", FRIEND.public)
    assert listed.has_changed()
    assert not listed.has_changed()


# ---- kept keys


def test_a_key_is_kept_for_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "key"
    made = KeyPair.kept(file)
    assert KeyPair.kept(file) == made
    assert made.public[0].isalnum()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.chmod(0o640)
    with pytest.raises(FileUnsafe):
        KeyPair.kept(file)


def test_a_damaged_key_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("short\n")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(BadSetting):
        KeyPair.kept(tmp_path / "key")


def test_keys_made_at_once_by_many_are_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as many:
        made = list(many.map(lambda _: KeyPair.kept(tmp_path / "key"), range(40)))
    assert len({pair.secret for pair in made}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
