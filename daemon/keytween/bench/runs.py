"""A whole bench: scenes and engines in, tables, a page and a JSON file out."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from keytween import engines
from keytween.bench import memory, own, rivals
from keytween.bench.measures import QUALITY, SPEED, Perceptual
from keytween.bench.page import Exhibit, exhibit, page, truth_exhibit
from keytween.bench.scenes import SIZE, Scene, scenes
from keytween.bench.tables import Bench, as_json
from keytween.bench.trial import Record, Step, trials
from keytween_wire.errors import BadSetting, OutputUnwritable, UnknownEngine
from keytween_wire.messages import Diffusion

USUAL = ("dissolve", "flow", *rivals.NAMES)
"""The engines that are compared where none is named."""
SIZES = 64, 4096


@dataclass(frozen=True, slots=True)
class Finished:
    """A bench at its end, with the pictures for its page."""

    bench: Bench
    exhibits: tuple[Exhibit, ...]


def chosen(names: Sequence[str], *, size: int = SIZE) -> tuple[Scene, ...]:
    """The bench's own scenes of those names, all of them where none is named; rendered ones keep their size.

    Raises BadSetting.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise BadSetting(name="size", value=size, detail=f"it must lie between {SIZES[0]} and {SIZES[1]}")
    known = {scene.name: scene for scene in (*scenes(size), *own.rendered())}
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise BadSetting(name="scene", value=unknown, detail=f"choose from {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(known.values())


def run(
    scenes: Sequence[Scene],
    names: Sequence[str] = (),
    *,
    title: str,
    memory_size: int | None = None,
    diffusion: Diffusion | None = None,
) -> Generator[Step | Finished]:
    """Every engine on every scene: a Step before each trial, and Finished at the end.

    With `memory_size` each engine's peak memory is measured as well, on pictures of that size. Raises
    UnknownEngine before anything is drawn.
    """
    wanted = tuple(dict.fromkeys(_meant(name) for name in names or USUAL))
    measured = 0 if memory_size is None else len(wanted)
    records: list[Record] = []
    exhibits: list[Exhibit] = []
    for event in trials(scenes, wanted, perceptual=perceptual(), diffusion=diffusion):
        if isinstance(event, Step):
            yield replace(event, total=event.total + measured)
            continue
        if not exhibits or exhibits[-1].scene != event.truth.scene.name:
            exhibits.append(truth_exhibit(event.truth))
        exhibits += [shown] if (shown := exhibit(event)) else []
        records.append(event.record)
    peaks: dict[str, float | None] = {}
    pair = None if memory_size is None else chosen([memory.SCENE], size=memory_size)[0]
    for number, name in enumerate(wanted if pair else ()):
        yield Step(f"memory: {name}", len(records) + number, len(records) + measured)
        peaks[name] = memory.peak(name, pair) if pair else None
    bench = Bench(title, (*QUALITY, *SPEED), tuple(records), None if memory_size is None else peaks)
    yield Finished(bench, tuple(exhibits))


def _meant(name: str) -> str:
    """The rival or engine that a name means; raises UnknownEngine, whose choices name the rivals too."""
    try:
        return name if name in rivals.NAMES else engines.choose(name)[0]
    except UnknownEngine as error:
        choices = f"{error.values['choices']}, {', '.join(rivals.NAMES)}"
        raise UnknownEngine(name=name, choices=choices) from error


def perceptual() -> Perceptual | None:
    """LPIPS where its library and its weights are on this machine; never downloads."""
    if find_spec("torch") is None or find_spec("lpips") is None:
        return None
    from keytween.engines.diffmorpher.perceptual import of_pictures

    return of_pictures()


def write(finished: Finished, folder: Path) -> Path:
    """Leaves `index.html` and `bench.json` in a folder, which is made; gives the page's path.

    Raises OutputUnwritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / "index.html"
        index.write_text(page(finished.bench, finished.exhibits), encoding="utf-8", errors="replace")
        text = json.dumps(as_json(finished.bench), indent=1)
        (folder / "bench.json").write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
    return index
