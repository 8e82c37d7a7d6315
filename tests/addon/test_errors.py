"""What can go wrong before a job is on its way: each has its error, and nothing is left half done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, the_tween  # noqa: E402

Maker = Callable[..., object]


def kept_code(scene: object) -> str:
    """The code of the error that the scene keeps."""
    return json.loads(scene.keytween.error)["code"]


def tween_strips(scene: object) -> list[object]:
    """Strips that Keytween made."""
    return [strip for strip in scene.sequence_editor.strips_all if "keytween_job" in strip]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_selected_strips_are_named(scene: object, strip_at: Maker, count: int) -> None:
    for start in range(count):
        strip_at(start + 1, 1, 4)
    with pytest.raises(RuntimeError, match=rf"{count} keyframe is selected.*KT-207"):
        bpy.ops.keytween.tween()


def test_a_whole_tween_is_no_keyframe(scene: object, daemon: Daemon, strip_at: Maker) -> None:
    strip_at(1, 1, 4).select = True
    other = strip_at(4, 1, 40)
    bpy.ops.keytween.tween()
    the_tween().select = True
    other.select = False
    with pytest.raises(RuntimeError, match="KT-207"):
        bpy.ops.keytween.tween()


def test_a_missing_file_is_named(scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    (tmp_path / "key at 4 é.png").unlink()
    with pytest.raises(RuntimeError, match=r"key at 4 é\.png.*KT-101"):
        bpy.ops.keytween.tween()
    assert kept_code(scene) == "KT-101"
    assert not tween_strips(scene)


def test_an_empty_file_is_named(scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    (tmp_path / "key at 4 é.png").write_bytes(b"")
    with pytest.raises(RuntimeError, match="KT-104"):
        bpy.ops.keytween.tween()


def test_a_damaged_file_is_refused_by_the_daemon(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    path = tmp_path / "key at 4 é.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RuntimeError, match=r"KT-10[23]"):
        bpy.ops.keytween.tween()


def test_keyframes_without_a_frame_between_them_are_refused(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip_at(1, 3, 4)
    strip_at(4, 1, 40)
    with pytest.raises(RuntimeError, match="KT-202"):
        bpy.ops.keytween.tween()
    assert kept_code(scene) == "KT-202"


def test_a_sequence_of_pictures_is_no_keyframe(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    strip = strip_at(1, 1, 4)
    (tmp_path / "second.png").write_bytes((tmp_path / "key at 1 é.png").read_bytes())
    strip.elements.append("second.png")
    strip_at(9, 1, 40)
    with pytest.raises(RuntimeError, match=r"2 pictures.*KT-208"):
        bpy.ops.keytween.tween()


def test_no_daemon_is_said_so(
    scene: object, strip_at: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(tmp_path / "nothing.json"))
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    with pytest.raises(RuntimeError, match=r"No Keytween daemon is running.*KT-301.*Start"):
        bpy.ops.keytween.tween()
    assert kept_code(scene) == "KT-301"
    assert not tween_strips(scene)


def test_a_killed_daemon_is_said_so(scene: object, own_daemon: Daemon, strip_at: Maker) -> None:
    own_daemon.kill()
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    with pytest.raises(RuntimeError, match="KT-302"):
        bpy.ops.keytween.tween()


def test_an_output_folder_that_cannot_be_made_is_named(
    scene: object, daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    (tmp_path / "keytween").write_text("a file where the folder should be")
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    with pytest.raises(RuntimeError, match="KT-209"):
        bpy.ops.keytween.tween()
    assert not tween_strips(scene)


def test_an_unknown_engine_is_refused_by_the_daemon(
    scene: object,
    daemon: Daemon,
    strip_at: Maker,
    extension: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = extension.tween.Settings.of
    monkeypatch.setattr(
        extension.tween.Settings,
        "of",
        classmethod(lambda _cls, scene: extension.tween.Settings(**_but(settings(scene), engine="magic"))),
    )
    strip_at(1, 1, 4)
    strip_at(4, 1, 40)
    with pytest.raises(RuntimeError, match=r"magic.*KT-203"):
        bpy.ops.keytween.tween()
    assert not tween_strips(scene)


def _but(settings: object, **changes: object) -> dict[str, object]:
    return {name: getattr(settings, name) for name in type(settings).__slots__} | changes
