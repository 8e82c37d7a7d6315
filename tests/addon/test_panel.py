"""What the panel shows and offers: prompts, checkpoints, jobs with their pictures, errors and their cures."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import PACKAGE, Daemon, the_tween, turn_until  # noqa: E402

Maker = Callable[..., object]
ADDON = Path(__file__).resolve().parents[2] / "addon"


class Recorder:
    """Stands in for a layout, which background Blender has no region for: writes down what is drawn."""

    def __init__(self, said: list[str], icons: list[int] | None = None) -> None:
        self.said = said
        self.icons = [] if icons is None else icons

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object, text: str | None = "", icon_value: int = 0, **_: object) -> Recorder:
            self.said += [text, *(a for a in arguments if isinstance(a, str))] if text else []
            self.said += [] if text else [a for a in arguments if isinstance(a, str)]
            self.icons += [icon_value] if name == "template_icon" else []
            return self

        return call


def drawn(extension: SimpleNamespace, panel: str, icons: list[int] | None = None) -> list[str]:
    """Every text, operator and property that a panel shows."""
    said: list[str] = []
    layout = Recorder(said, icons)
    getattr(extension.panels, f"KEYTWEEN_PT_{panel}").draw(SimpleNamespace(layout=layout), bpy.context)
    return said


@pytest.fixture
def welcome(extension: SimpleNamespace) -> Iterator[None]:
    """A daemon that has told what it has."""
    from keytween_wire.messages import CheckpointInfo, Welcome

    known = (CheckpointInfo("toon"), CheckpointInfo("sd15", "", available=False, pullable=True))
    extension.poller.STATUS.link.welcome = Welcome(1, "0.1.0", checkpoints=known, log="/nowhere/daemon.log")
    yield
    extension.poller.STATUS.link.welcome = None


# ---- settings


def test_each_selected_keyframe_has_a_prompt_of_its_own(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    scene.keytween.engine = "diffmorpher"
    assert extension.panels.KEYTWEEN_PT_prompts.poll(bpy.context)
    assert "Select the keyframes" in drawn(extension, "prompts")
    strip_at(1, 1, 4)
    strip_at(5, 1, 40)
    said = drawn(extension, "prompts")
    assert [text for text in said if text.startswith("key ")] == ["key 1", "key 5"]
    assert said.count("keytween_prompt") == 2
    scene.keytween.engine = "flow"
    assert not extension.panels.KEYTWEEN_PT_prompts.poll(bpy.context)


def test_checkpoints_are_those_that_the_daemon_names(
    scene: object, extension: SimpleNamespace, welcome: None
) -> None:
    said: list[str] = []
    menu = SimpleNamespace(layout=Recorder(said))
    extension.remedies.KEYTWEEN_MT_checkpoints.draw(menu, bpy.context)
    assert said == ["toon", "keytween.use_checkpoint", "Pull sd15", "keytween.pull_checkpoint"]
    assert bpy.ops.keytween.use_checkpoint(name="toon") == {"FINISHED"}
    assert scene.keytween.checkpoint == "toon"


def test_pulling_a_checkpoint_honours_online_access(scene: object, extension: SimpleNamespace) -> None:
    assert not bpy.app.online_access
    with pytest.raises(RuntimeError, match=r"sd15 needs the network.*KT-310"):
        bpy.ops.keytween.pull_checkpoint(name="sd15")
    assert not extension.errands.running()
    assert {"Fetching sd15", "screen.userpref_show"} <= set(drawn(extension, "main"))
    extension.errands.register()


def test_a_preset_keeps_every_setting(scene: object, extension: SimpleNamespace) -> None:
    settings = scene.keytween
    settings.exposure, settings.interpolation, settings.prompt = "2", "SINE", "a square"
    assert bpy.ops.keytween.add_preset(name="On twos") == {"FINISHED"}
    file = bpy.utils.preset_find("On_twos", "keytween")
    assert file
    settings.exposure, settings.interpolation, settings.prompt = "1", "LINEAR", ""
    bpy.ops.script.execute_preset(filepath=file, menu_idname="KEYTWEEN_MT_presets")
    assert (settings.exposure, settings.interpolation, settings.prompt) == ("2", "SINE", "a square")
    kept = {name.removeprefix("settings.") for name in extension.menus.KEYTWEEN_OT_add_preset.kept()}
    plain = {p.identifier for p in settings.bl_rna.properties if p.type not in {"POINTER", "COLLECTION"}}
    assert kept == plain - {"name", "error"}
    assert bpy.ops.keytween.add_preset(name="On twos", remove_name=True) == {"FINISHED"}
    assert not bpy.utils.preset_find("On_twos", "keytween")


def test_the_right_click_menu_has_our_entries_where_they_can_be_meant(
    scene: object, daemon: Daemon, extension: SimpleNamespace, strip_at: Maker
) -> None:
    def entries() -> list[str]:
        said: list[str] = []
        extension.menus.draw_context_menu(SimpleNamespace(layout=Recorder(said)), bpy.context)
        return said

    assert entries() == []
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 40)]
    assert entries() == ["keytween.tween"]
    bpy.ops.keytween.tween()
    for strip in strips:
        strip.select = False
    scene.sequence_editor.active_strip = the_tween()
    found = entries()
    assert {"keytween.retime", "keytween.regenerate", "keytween.promote"} <= set(found)
    for name in found:
        assert hasattr(bpy.types, name.replace("keytween.", "KEYTWEEN_OT_")), name
    assert extension.menus.draw_context_menu in bpy.types.SEQUENCER_MT_context_menu._dyn_ui_initialize()


# ---- errors


def test_every_error_that_can_be_mended_here_has_its_button(
    scene: object, extension: SimpleNamespace, welcome: None
) -> None:
    from keytween_wire.errors import error_classes

    codes = {cls.code: cls for cls in error_classes()}
    assert extension.panels.FIXES.keys() <= codes.keys()
    wanted = {
        "KT-301": {"keytween.start", "keytween.set_up"},
        "KT-210": {"KEYTWEEN_MT_checkpoints"},
        "KT-503": {"keytween.free_memory"},
        "KT-507": {"keytween.open_log"},
        "KT-310": {"screen.userpref_show"},
    }
    for code, operators in wanted.items():
        said: list[str] = []
        extension.panels.draw_error(Recorder(said), bpy.context, codes[code]())
        assert operators & set(said), code
        assert "keytween.copy_diagnostics" in said


def test_no_text_that_is_put_together_escapes_translation() -> None:
    """Blender translates plain texts itself; one with values in it must go through words.py."""
    for path in ADDON.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                texts = [k.value for k in node.keywords if k.arg in {"text", "placeholder", "description"}]
                made = [t for t in texts if isinstance(t, ast.JoinedStr | ast.BinOp)]
                assert not made, f"{path.name}:{node.lineno}"


def test_every_operator_property_and_menu_explains_itself(extension: SimpleNamespace) -> None:
    for name in dir(bpy.types):
        if "KEYTWEEN_OT_" in name:
            operator = getattr(bpy.ops.keytween, name.removeprefix("KEYTWEEN_OT_"))
            assert operator.get_rna_type().description, name
    strip = bpy.types.Strip.bl_rna.properties["keytween_prompt"]
    preferences = bpy.context.preferences.addons[PACKAGE].preferences.bl_rna.properties
    ours = [p for p in preferences if p.identifier not in {"rna_type", "bl_idname"}]
    settings = [
        p for p in bpy.context.scene.keytween.bl_rna.properties if p.identifier not in {"rna_type", "name"}
    ]
    for prop in [strip, *ours, *settings]:
        assert prop.name, prop.identifier
        assert prop.description, prop.identifier


# ---- jobs


def press(extension: SimpleNamespace, scene: object) -> object:
    """What the button does; `invoke` itself needs a window."""
    placed = extension.tween.place(scene, extension.tween.order(scene))
    if extension.poller.STATUS.link.state is extension.link.LinkState.OFF:
        extension.poller.STATUS.link.connect()
    extension.poller.submit(placed)
    return placed


def newest(view: object) -> str:
    """The file of a job's last drawing."""
    return view.files[max(view.files)]


def picture_of(extension: SimpleNamespace, view: object) -> str:
    """The file whose picture is kept for a job. Icons have numbers in a window alone, pictures always."""
    assert list(extension.thumbnails._kept[view.job_id].image_size) != [0, 0]
    return extension.thumbnails._newest[view.job_id]


def test_a_job_shows_its_newest_drawing_and_can_be_cancelled_with_all_others(
    scene: object,
    daemon: Daemon,
    strip_at: Maker,
    extension: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strip_at(1, 1, 10, size=(960, 540))
    strip_at(66, 1, 400, size=(960, 540))
    scene.keytween.engine = "flow"
    views = [press(extension, scene), press(extension, scene)]
    turn_until(extension, lambda: len(views[0].files) >= 2)
    icons: list[int] = []
    said = drawn(extension, "jobs", icons)
    assert "keytween.cancel_all" in said
    assert said.count("keytween.cancel") == 2
    assert len(icons) == 1
    assert picture_of(extension, views[0]) == newest(views[0])
    before, first = len(views[0].files), newest(views[0])
    turn_until(extension, lambda: len(views[0].files) > before)
    monkeypatch.setattr(extension.thumbnails, "PACE_S", 1000.0)
    drawn(extension, "jobs")
    assert picture_of(extension, views[0]) == first
    monkeypatch.setattr(extension.thumbnails, "PACE_S", 0.0)
    drawn(extension, "jobs")
    assert picture_of(extension, views[0]) == newest(views[0])
    assert bpy.ops.keytween.cancel_all() == {"FINISHED"}
    turn_until(extension, lambda: all(view.state.ended for view in views))
    assert {view.state.value for view in views} == {"cancelled"}
    assert drawn(extension, "jobs", icons).count("keytween.cancel_all") == 0
    assert len(views[0].files) < 64
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.keytween.cancel_all()


def test_after_a_reload_the_list_has_the_finished_jobs(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(5, 1, 40)
    bpy.ops.keytween.tween()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    turn_until(extension, lambda: bool(extension.poller.STATUS.jobs))
    icons: list[int] = []
    said = drawn(extension, "jobs", icons)
    assert "3 frames" in said
    assert "key 1 to key 5" in said
    (view,) = extension.poller.STATUS.jobs.values()
    assert len(icons) == 1
    assert picture_of(extension, view) == newest(view)


def test_a_long_history_is_drawn_in_part(scene: object, extension: SimpleNamespace, tmp_path: Path) -> None:
    done = extension.status.JobState.DONE
    for number in range(40):
        view = SimpleNamespace(
            job_id=str(number),
            label=f"job {number}",
            state=done,
            files={},
            total=3,
            error=None,
            folder=tmp_path,
        )
        extension.poller.STATUS.jobs[str(number)] = view
    said = drawn(extension, "jobs")
    assert [text for text in said if text.startswith("job ")] == [f"job {n}" for n in range(39, 31, -1)]
    assert "32 more" in said
    extension.poller.STATUS.jobs.clear()


def test_memory_is_freed_when_asked_to(
    scene: object, daemon: Daemon, strip_at: Maker, extension: SimpleNamespace
) -> None:
    strip_at(1, 1, 4)
    strip_at(5, 1, 40)
    bpy.ops.keytween.tween()
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.keytween.free_memory()
    bpy.ops.keytween.connect()
    turn_until(extension, lambda: extension.poller.STATUS.link.state.value == "ready")
    assert extension.poller.STATUS.link.welcome.presets
    assert bpy.ops.keytween.free_memory() == {"FINISHED"}
    strip_at(21, 1, 4)
    strip_at(25, 1, 40)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
