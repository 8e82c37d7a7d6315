"""The engines' table: names, availability and lazy loading."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint

import pytest

from keytween import engines
from keytween.bench import pairs
from keytween.engines import choose, engine_infos, open_engine
from keytween.engines.auto import LIKE
from keytween.engines.base import Frame
from keytween.engines.dissolve import Dissolve
from keytween.engines.flow import Flow
from keytween.examples import examples, toon_examples
from keytween_wire.errors import EngineUnavailable, UnknownEngine
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest


@pytest.fixture(autouse=True)
def _forget_added_engines() -> Iterator[None]:
    yield
    engines._added.cache_clear()


def test_the_built_in_engines_are_listed() -> None:
    assert [info.name for info in engine_infos()][:3] == ["flow", "dissolve", "diffmorpher"]
    assert all(info.available for info in engine_infos()[:2])


def test_only_flow_says_that_it_overshoots() -> None:
    assert [info.name for info in engine_infos()[:3] if info.overshoot] == ["flow"]


def test_diffmorpher_says_what_it_lacks_and_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, without={"torch", "transformers"})
    flow, dissolve, diffmorpher = engine_infos()[:3]
    assert flow.available
    assert dissolve.available
    assert not diffmorpher.available
    assert "torch, transformers not installed" in diffmorpher.reason
    assert "`diffusion`" in diffmorpher.reason


def test_diffmorpher_is_available_where_everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, without=set())
    assert engine_infos()[2] == engines.DIFFMORPHER
    assert engines.DIFFMORPHER.available


def test_opening_diffmorpher_without_its_libraries_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("keytween.engines.diffmorpher")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable) as caught:
        open_engine("diffmorpher")
    assert "torch" in caught.value.message


@pytest.mark.parametrize("name", ["flow", "dissolve"])
def test_an_opened_engine_is_the_one_that_was_listed(name: str) -> None:
    assert open_engine(name).info in engine_infos()


def test_auto_picks_flow_and_says_why() -> None:
    name, reason = choose("auto")
    assert name == "flow"
    assert reason.endswith(".")
    assert open_engine("auto").info.name == "flow"


def test_auto_says_so_where_it_would_redraw_but_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, without={"torch"})
    pair = pairs.chosen(("metamorphosis",), 1, size=64)[0]
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    asked = MorphRequest(ends, ((0.4, 0.5),), engine="auto", diffusion=Diffusion(checkpoint="toon"))
    made = [e for e in open_engine("auto").morph(asked, (pair.draw(0), pair.draw(1))) if isinstance(e, Frame)]
    assert "`diffmorpher` would redraw" in made[0].note
    assert "torch not installed" in made[0].note
    assert "fade" in made[0].note
    assert made[1].note == ""


@pytest.mark.parametrize(("group", "moves"), [("animation", True), ("metamorphosis", False)])
def test_the_bound_of_auto_tells_poses_from_characters(group: str, moves: bool) -> None:
    ends = KeyframeImage("0", ".png"), KeyframeImage("1", ".png")
    for pair in pairs.chosen((group,), 3):
        asked = MorphRequest(ends, ((0.5,),))
        found = Flow().alike(asked, (pair.draw(0), pair.draw(1)), 0).found
        assert found > 1.2 * LIKE if moves else found < LIKE / 1.2


def test_auto_fades_where_flow_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert choose("auto")[0] == "dissolve"
    assert "cv2" in engine_infos()[0].reason


def test_an_unknown_name_is_refused_with_the_choices() -> None:
    with pytest.raises(UnknownEngine) as caught:
        open_engine("slow")
    assert "auto, flow, dissolve, diffmorpher" in caught.value.advice


def test_listing_the_engines_loads_none_of_them() -> None:
    loaded = modules_after("from keytween.engines import engine_infos; engine_infos()")
    assert not loaded & {"cv2", "torch", "numpy", "keytween.engines.flow", "keytween.engines.diffmorpher"}


def test_opening_dissolve_leaves_flow_alone() -> None:
    loaded = modules_after("from keytween.engines import open_engine; open_engine('dissolve')")
    assert "keytween.engines.dissolve" in loaded
    assert not loaded & {"cv2", "keytween.engines.flow"}


def test_an_engine_from_another_package_opens_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, EntryPoint("mine", "keytween.engines.dissolve:Dissolve", engines.GROUP))
    assert "mine" in [info.name for info in engine_infos()]
    assert isinstance(open_engine("mine"), Dissolve)


def test_another_package_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, EntryPoint("flow", "keytween.engines.dissolve:Dissolve", engines.GROUP))
    assert open_engine("flow").info.name == "flow"
    assert [info.name for info in engine_infos()].count("flow") == 1


def test_an_engine_that_lacks_something_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    _add(monkeypatch, EntryPoint("broken", "nowhere_at_all:Engine", engines.GROUP))
    with pytest.raises(EngineUnavailable) as caught:
        open_engine("broken")
    assert "nowhere_at_all" in caught.value.message


def test_every_example_comes_with_its_keyframes() -> None:
    assert [example.name for example in examples()] == ["wave", "leap"]
    assert [example.name for example in toon_examples()] == ["change", "turn"]
    every = (*examples(), *toon_examples())
    sizes = [len(path.read_bytes()) for example in every for path in example.keyframes]
    assert min(sizes) > 1000
    assert sum(sizes) < 400_000


def _install(monkeypatch: pytest.MonkeyPatch, *, without: set[str]) -> None:
    """Every library that an engine asks for is there but these."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name in without else name)


def _add(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def found(*, group: str) -> Sequence[EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(engines, "entry_points", found)
    engines._added.cache_clear()


def modules_after(statements: str) -> set[str]:
    """The modules that a fresh Python has loaded after the statements."""
    program = f"import sys; {statements}; print(*sys.modules)"
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env
    )
    return set(done.stdout.split())
