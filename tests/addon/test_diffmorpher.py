"""The engine `diffmorpher` from Blender: its panel, its request, and a tween with a tiny checkpoint.

The tweens need KEYTWEEN_DIFFUSION_DAEMON, the command of a program that has the extra `diffusion`, and
KEYTWEEN_TINY_CHECKPOINT, a folder that `checkpoints.make_sd` of tests/diffusion wrote.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import Daemon, elements, remembered, shown, the_tween, turn_until  # noqa: E402
from .test_errors import kept_code, tween_strips  # noqa: E402
from .test_registration import Recorder  # noqa: E402
from .test_tween import folder_of, pixels  # noqa: E402

Maker = Callable[..., object]
OWN = {"checkpoint", "preset", "prompt", "seed", "draft_first"}


def needed(name: str) -> str:
    """An environment variable that a test cannot do without."""
    value = os.environ.get(name, "")
    if not value:
        reason = f"{name} is not set: it needs a program with the extra `diffusion` and a tiny checkpoint"
        if os.environ.get("KEYTWEEN_TEST_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return value


@pytest.fixture(scope="module")
def shared_diffusion_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon that can run the engine, so that its worker imports torch once."""
    command = shlex.split(needed("KEYTWEEN_DIFFUSION_DAEMON"))
    daemon = Daemon(command, tmp_path_factory.mktemp("diffusion"))
    with pytest.MonkeyPatch.context() as patch:
        # Over a tiny network, threads wait for each other longer than they work where cores are busy.
        patch.setenv("OMP_NUM_THREADS", "1")
        daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def diffusion_daemon(shared_diffusion_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The same, found by the extension."""
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(shared_diffusion_daemon.connection))
    return shared_diffusion_daemon


@pytest.fixture
def checkpoint() -> str:
    """The tiny checkpoint's folder."""
    return needed("KEYTWEEN_TINY_CHECKPOINT")


def two_keyframes(strip_at: Maker) -> None:
    """Two selected strips of 64 x 64 pixels with two frames between them."""
    strip_at(1, 1, 4, size=(64, 64))
    strip_at(4, 1, 40, size=(64, 64))


def drawn(extension: SimpleNamespace) -> list[str]:
    """Every property, text and button of the panel as it stands."""
    said: list[str] = []
    for panel in (extension.panels.KEYTWEEN_PT_main, extension.panels.KEYTWEEN_PT_options):
        panel.draw(SimpleNamespace(layout=Recorder(said)), bpy.context)
    return said


# ---- the panel


def test_the_engine_can_be_chosen_before_a_daemon_is_there(scene: object) -> None:
    scene.keytween.engine = "diffmorpher"
    assert scene.keytween.engine == "diffmorpher"


@pytest.mark.parametrize("engine", ["flow", "dissolve", "auto", "diffmorpher"])
def test_its_settings_are_shown_while_it_is_chosen_and_only_then(
    extension: SimpleNamespace, scene: object, engine: str
) -> None:
    scene.keytween.engine = engine
    shown = [text for text in drawn(extension) if text in OWN]
    assert sorted(shown) == (sorted(OWN) if engine == "diffmorpher" else [])


def test_an_engine_that_was_added_has_its_seed(extension: SimpleNamespace, scene: object) -> None:
    from keytween_wire.messages import EngineInfo

    extension.poller.STATUS.engines = (EngineInfo("magic", "Added by magic."),)
    scene.keytween.engine = "magic"
    assert [text for text in drawn(extension) if text in OWN] == ["seed"]


def test_an_engine_that_cannot_run_is_shown_with_the_whole_reason(
    extension: SimpleNamespace, scene: object
) -> None:
    from keytween_wire.messages import EngineInfo

    reason = "torch, diffusers, safetensors not installed; install Keytween with its extra `diffusion`"
    extension.poller.STATUS.engines = (EngineInfo("diffmorpher", "It morphs.", False, reason),)
    scene.keytween.engine = "diffmorpher"
    assert reason in " ".join(drawn(extension))
    ((*_, tooltip, icon, _number),) = extension.properties.engine_items(None, None)
    assert reason in tooltip
    assert icon == "ERROR"


def test_every_preset_has_a_name_and_a_tooltip(extension: SimpleNamespace) -> None:
    from keytween_wire.messages import Diffusion

    presets = {name: (label, text) for name, label, text, *_ in extension.properties.preset_items(None, None)}
    assert list(presets) == list(Diffusion.PRESETS)
    assert all(label and text for label, text in presets.values())


# ---- the request


def test_its_settings_are_what_the_request_says(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    from keytween_wire.messages import Diffusion

    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.preset, settings.seed = "diffmorpher", "draft", 7
    settings.checkpoint, settings.prompt = "//models/sd/", " a red square "
    request = extension.tween.order(scene).submission.request
    folder = Path(bpy.data.filepath).parent / "models" / "sd"
    assert Path(request.diffusion.checkpoint) == folder
    assert request.diffusion == Diffusion(
        checkpoint=request.diffusion.checkpoint, prompts=("a red square",), **Diffusion.PRESETS["draft"]
    )
    assert (request.engine, request.seed) == ("diffmorpher", 7)


def test_a_keyframes_own_prompt_stands_in_for_the_one_of_all(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    strips = [strip_at(1, 1, 4), strip_at(5, 1, 20), strip_at(9, 1, 40)]
    settings = scene.keytween
    settings.engine, settings.checkpoint, settings.prompt = "diffmorpher", "/models/sd", "a square"
    strips[2].keytween_prompt = " a red square on the right "
    request = extension.tween.order(scene).submission.request
    assert request.diffusion.prompts == ("a square", "a square", "a red square on the right")


def test_the_presets_are_those_of_the_daemon(scene: object, extension: SimpleNamespace) -> None:
    from keytween_wire.messages import Diffusion, PresetInfo, Welcome

    quick = PresetInfo("quick", "Only a glance", Diffusion(steps=5))
    extension.poller.STATUS.link.welcome = Welcome(1, "9.9", presets=(quick,))
    try:
        assert [item[:3] for item in extension.properties.preset_items(None, None)] == [
            ("quick", "Quick", "Only a glance")
        ]
        scene.keytween.engine, scene.keytween.preset = "diffmorpher", "quick"
        scene.keytween.checkpoint = "toon"
        settings = extension.tween.Settings.of(scene)
        assert settings.diffusion == Diffusion("toon", steps=5)
    finally:
        extension.poller.STATUS.link.welcome = None


@pytest.mark.parametrize("preset", ["final", "paper"])
def test_an_empty_prompt_is_no_prompt(
    scene: object, extension: SimpleNamespace, strip_at: Maker, preset: str
) -> None:
    from keytween_wire.messages import Diffusion

    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.preset, settings.checkpoint = "diffmorpher", preset, "/models/sd"
    order = extension.tween.order(scene)
    assert order.submission.request.diffusion == Diffusion("/models/sd", **Diffusion.PRESETS[preset])


def test_a_strip_remembers_what_was_not_the_default(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.preset, settings.checkpoint = "diffmorpher", "paper", "/models/sd"
    kept = extension.tween.order(scene).tween
    told = {"checkpoint": "/models/sd", "reschedule": "full", "keep_ends": False}
    assert kept.request["diffusion"] == told
    assert extension.insert.Tween.from_json(kept.to_json()).request["diffusion"] == told


def test_another_engine_is_told_nothing_of_it(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    from keytween_wire.messages import Diffusion

    two_keyframes(strip_at)
    scene.keytween.checkpoint, scene.keytween.prompt = "/models/sd", "a red square"
    order = extension.tween.order(scene)
    assert order.submission.request.diffusion == Diffusion()
    assert "diffusion" not in order.tween.request


def test_a_strip_that_was_made_before_is_retimed_while_it_is_chosen(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    strip_at(1, 1, 4)
    strip_at(6, 1, 40)
    bpy.ops.keytween.tween()
    strip = the_tween()
    assert "diffusion" not in remembered(strip)["request"]
    scene.sequence_editor.active_strip = strip
    scene.keytween.engine, strip.keytween_own.settings.exposure = "diffmorpher", "2"
    assert bpy.ops.keytween.retime() == {"FINISHED"}
    assert len(set(elements(strip))) == 4


# ---- what can be wrong


def test_without_a_checkpoint_it_is_refused_and_the_next_tween_works(
    scene: object, daemon: Daemon, strip_at: Maker
) -> None:
    two_keyframes(strip_at)
    scene.keytween.engine = "diffmorpher"
    with pytest.raises(RuntimeError, match=r"no folder was chosen.*KT-210"):
        bpy.ops.keytween.tween()
    assert kept_code(scene) == "KT-210"
    assert not tween_strips(scene)
    scene.keytween.engine = "flow"
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert scene.keytween.error == ""
    assert the_tween()["keytween_state"] == "done"


def test_a_checkpoint_beside_a_file_that_is_not_saved_is_refused(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    scene = bpy.context.scene
    scene.sequence_editor_create()
    two_keyframes(strip_at)
    scene.keytween.engine, scene.keytween.checkpoint = "diffmorpher", "//models/sd"
    with pytest.raises(RuntimeError, match=r"//models/sd.*not saved yet.*KT-210"):
        bpy.ops.keytween.tween()


# ---- the real engine


@pytest.mark.timeout(300)
def test_it_tweens_two_strips(
    scene: object,
    diffusion_daemon: Daemon,
    checkpoint: str,
    strip_at: Maker,
    extension: SimpleNamespace,
    tmp_path: Path,
) -> None:
    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.preset, settings.checkpoint = "diffmorpher", "draft", checkpoint
    settings.prompt = "a red box"
    assert bpy.ops.keytween.tween("EXEC_DEFAULT") == {"FINISHED"}
    strip = the_tween()
    assert shown(strip) == "A 0.33 0.67 B"
    assert strip["keytween_state"] == "done"
    assert extension.poller.STATUS.jobs[strip["keytween_job"]].state.value == "done"
    folder = folder_of(strip)
    for key, start in (("key_00.png", 1), ("key_01.png", 4)):
        assert (folder / key).read_bytes() == (tmp_path / f"key at {start} é.png").read_bytes()
    looks = {name: pixels(folder / name) for name in elements(strip)}
    assert {size for size, _ in looks.values()} == {(64, 64)}
    assert len({tuple(numbers) for _, numbers in looks.values()}) == 4
    assert scene.keytween.error == ""


@pytest.mark.timeout(300)
def test_a_folder_that_is_no_checkpoint_fails_the_job_and_the_next_tween_works(
    scene: object, diffusion_daemon: Daemon, strip_at: Maker, tmp_path: Path
) -> None:
    two_keyframes(strip_at)
    scene.keytween.engine, scene.keytween.checkpoint = "diffmorpher", str(tmp_path / "nothing")
    with pytest.raises(RuntimeError, match=r"there is no such folder.*KT-210"):
        bpy.ops.keytween.tween("EXEC_DEFAULT")
    assert kept_code(scene) == "KT-210"
    (failed,) = tween_strips(scene)
    assert failed["keytween_state"] == "failed"
    assert json.loads(failed["keytween_error"])["code"] == "KT-210"
    scene.sequence_editor.strips.remove(failed)
    scene.keytween.engine = "flow"
    assert bpy.ops.keytween.tween("EXEC_DEFAULT") == {"FINISHED"}
    assert scene.keytween.error == ""
    assert the_tween()["keytween_state"] == "done"


def looks_shown(extension: SimpleNamespace, strip: object) -> list[str]:
    """Whether each in-between that the strip shows is the draft's or the engine's own."""
    tween = extension.retiming.tween_of(strip)
    names = {tween.draft_looks[0]: "draft", tween.looks[0]: "final"}
    return [names[name.split("_")[1]] for name in elements(strip)[1:-1]]


@pytest.mark.timeout(300)
def test_a_draft_shows_until_its_own_drawings_are_there(
    scene: object, diffusion_daemon: Daemon, checkpoint: str, strip_at: Maker, extension: SimpleNamespace
) -> None:
    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.preset, settings.checkpoint = "diffmorpher", "draft", checkpoint
    extension.poller.STATUS.link.connect()
    final = extension.operators.begin(scene)
    draft, _ = jobs = list(extension.poller.STATUS.jobs.values())
    assert jobs == [draft, final]
    assert (draft.draft, draft.total, final.total) == (True, 2, 2)
    turn_until(extension, lambda: draft.state.ended)
    strip = the_tween()
    assert shown(strip) == "A 0.33 0.67 B"
    assert "draft" in looks_shown(extension, strip)
    assert strip["keytween_state"] != "done"
    turn_until(extension, lambda: final.state.ended, seconds=200)
    assert looks_shown(extension, strip) == ["final", "final"]
    assert strip["keytween_state"] == "done"
    own = strip.keytween_own
    own.show_draft = True
    assert looks_shown(extension, strip) == ["draft", "draft"]
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    extension.poller.tick()
    strip = the_tween()
    assert looks_shown(extension, strip) == ["draft", "draft"]
    strip.keytween_own.show_draft = False
    assert looks_shown(extension, strip) == ["final", "final"]


def test_a_draft_is_for_slow_engines_and_for_those_who_want_one(
    scene: object, extension: SimpleNamespace, strip_at: Maker
) -> None:
    two_keyframes(strip_at)
    settings = scene.keytween
    settings.engine, settings.checkpoint = "diffmorpher", "/models/sd"
    extension.tween.place(scene, extension.tween.order(scene))
    strip = the_tween()
    job = extension.retiming.draft(strip)
    request = job.submission[0].request
    assert (request.engine, request.positions) == ("flow", ((pytest.approx(1 / 3), pytest.approx(2 / 3)),))
    strip.keytween_own.settings.draft_first = False
    assert extension.retiming.draft(strip) is None
    scene.sequence_editor.strips.remove(strip)
    settings.engine = "flow"
    extension.tween.place(scene, extension.tween.order(scene))
    assert extension.retiming.draft(the_tween()) is None
