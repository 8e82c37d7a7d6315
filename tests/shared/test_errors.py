"""The error tree: every failure has a code of its own, a sentence, a next step, and survives the wire."""

from __future__ import annotations

import pickle
import re
from string import Formatter

import pytest

from keytween_wire import errors
from keytween_wire.errors import BadSetting, KeytweenError, PictureMissing, error_classes, from_wire

TREE = [cls for cls in error_classes() if cls.__module__ == errors.__name__]


def fields(template: str) -> set[str]:
    """The names that a sentence template asks for."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def example(cls: type[KeytweenError]) -> KeytweenError:
    """An error of a class with every value it asks for."""
    return cls(**{name: f"<{name}>" for name in fields(cls.sentence) | fields(cls.next_step)})


def test_the_walk_finds_every_error_class_of_the_module_once() -> None:
    found = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, KeytweenError)]
    assert len(TREE) == len(set(TREE))
    assert set(TREE) == set(found)
    assert TREE[0] is KeytweenError


def test_every_code_belongs_to_one_class() -> None:
    codes = [cls.code for cls in TREE]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("cls", TREE)
def test_every_class_has_its_own_code_docstring_sentence_and_next_step(cls: type[KeytweenError]) -> None:
    own = vars(cls)
    assert re.fullmatch(r"KT-\d{3}", own["code"])
    assert own["__doc__"].splitlines()[0].rstrip().endswith(".")
    assert own["sentence"].endswith(".")
    assert own["next_step"].endswith(".") or own["next_step"] == "{fix}"


@pytest.mark.parametrize("cls", TREE)
def test_a_code_is_numbered_within_its_branch(cls: type[KeytweenError]) -> None:
    root_first = [c for c in reversed(cls.__mro__) if c in TREE]
    branch = root_first[1] if len(root_first) > 1 else KeytweenError
    assert branch.code.endswith("00")
    assert cls.code.startswith(branch.code[:4])


@pytest.mark.parametrize("cls", TREE)
def test_sentence_and_next_step_have_no_gaps_when_given_their_values(cls: type[KeytweenError]) -> None:
    error = example(cls)
    assert not re.search(r"[{}?]", error.message + error.advice)
    assert all(f"<{name}>" in error.message for name in fields(cls.sentence))
    assert str(error) == f"{error.message} ({cls.code})"


@pytest.mark.parametrize("cls", TREE)
def test_an_older_peer_may_leave_values_out(cls: type[KeytweenError]) -> None:
    assert not re.search(r"[{}]", cls().message + cls().advice)


@pytest.mark.parametrize("cls", TREE)
def test_the_same_class_is_raised_at_the_far_end(cls: type[KeytweenError]) -> None:
    error = example(cls)
    there = from_wire(error.code, error.values)
    assert (type(there), str(there), there.advice) == (cls, str(error), error.advice)


@pytest.mark.parametrize("cls", TREE)
def test_an_error_survives_pickle(cls: type[KeytweenError]) -> None:
    error = example(cls)
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), there.values, there.args) == (cls, error.values, error.args)


def test_an_unknown_code_becomes_the_root_with_its_text() -> None:
    error = from_wire("KT-999", {"detail": "the moon is full"})
    assert type(error) is KeytweenError
    assert "the moon is full" in error.message


def test_an_unknown_code_without_text_is_at_least_named() -> None:
    assert "KT-999" in from_wire("KT-999", {}).message


def test_values_of_any_type_are_kept_as_text() -> None:
    assert BadSetting(name="exposure", value=0, detail=None).values == {
        "name": "exposure",
        "value": "0",
        "detail": "None",
    }


def test_braces_in_a_value_are_text_and_not_a_template() -> None:
    assert PictureMissing(name="{detail}{0}{").message == "There is no picture at {detail}{0}{."


@pytest.mark.parametrize("name", ["self", "code", "message", "args"])
def test_a_far_end_may_send_values_of_any_name(name: str) -> None:
    error = from_wire("KT-101", {name: "x"})
    assert type(error) is PictureMissing
    assert error.values[name] == "x"


def test_what_a_file_says_of_itself_fills_no_message() -> None:
    error = PictureMissing(name="a" * 100_000)
    assert 4096 <= len(error.message) < 4200
    assert from_wire(error.code, error.values).message == error.message


def test_a_number_with_too_many_digits_to_write_is_still_said() -> None:
    assert "thousands of digits" in BadSetting(name="seed", value=16**5000, detail="it is large").message


@pytest.mark.parametrize("order", ["\x1b[2J", "\r", "\b", "\x07", "\x9b31m", "\u202e", "\u2066", "\0"])
def test_what_a_terminal_would_obey_is_written_out(order: str) -> None:
    error = PictureMissing(name=f"a{order}b.png")
    assert order[0] not in str(error)
    assert f"a\\u{ord(order[0]):04x}{order[1:]}b.png" in error.message
    assert from_wire(error.code, error.values).message == error.message


def test_names_in_any_script_are_shown_as_they_are() -> None:
    name = "ひつじ-\u200dעברית-👩\u200d🎨-é\tb\n"
    assert PictureMissing(name=name).values["name"] == name
