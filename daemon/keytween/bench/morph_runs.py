"""A whole bench of morphs: pairs and contenders in; tables, a page and a JSON file out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from keytween.bench import memory
from keytween.bench.ladder import Contender
from keytween.bench.morph_page import Morphs, as_json, page
from keytween.bench.morphing import Known, Outcome, Shelf, cannot, opened, tried, weights_of
from keytween.bench.pairs import Pair
from keytween.bench.sequence import Gauge, measures, plain
from keytween.bench.tables import Bench
from keytween.bench.trial import Step
from keytween.engines import DIFFMORPHER
from keytween.engines.base import Engine
from keytween_wire.errors import BadSetting, CheckpointUnusable, OutputUnwritable
from keytween_wire.messages import Diffusion

TRIALS = "trials"
FEWEST, MOST = 4, 257
"""How many drawings a morph may have, both ends included."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be drawn, and where outcomes are kept: a folder that a later run goes on from."""

    title: str
    pairs: tuple[Pair, ...]
    contenders: tuple[Contender, ...]
    whole: Diffusion
    frames: int
    folder: Path
    memory: bool = False

    def check(self) -> None:
        """Raises BadSetting."""
        if not FEWEST <= self.frames <= MOST:
            detail = f"it must lie between {FEWEST} and {MOST}"
            raise BadSetting(name="frames", value=self.frames, detail=detail)


def run(plan: Plan) -> Generator[Step | Morphs]:
    """Every contender on every pair: Steps on the way, and Morphs at the end. Raises BadSetting."""
    plan.check()
    with tempfile.TemporaryDirectory(prefix="keytween-bench-") as fits:
        engines = opened([contender.engine for contender in plan.contenders], Path(fits))
        gauge = gauge_of(engines, plan.whole)
        yield from _run(plan, engines, gauge)


def gauge_of(engines: Mapping[str, Engine | str], whole: Diffusion) -> Gauge:
    """What pacing is measured with, LPIPS or the checkpoint's latents; 1 - MS-SSIM without a checkpoint."""
    if find_spec("torch") is None or isinstance(engines.get(DIFFMORPHER.name), str):
        return plain()
    from keytween.engines.diffmorpher import DiffMorpher

    engine = engines.get(DIFFMORPHER.name)
    try:
        engine = engine if isinstance(engine, DiffMorpher) else DiffMorpher()
        name, keep, apart = engine.distance(whole)
    except (ImportError, CheckpointUnusable):
        return plain()
    return Gauge(
        name, name.split(" (")[0].removeprefix("VAE "), keep, apart, weights_of(Path(whole.checkpoint))
    )


def _run(plan: Plan, engines: Mapping[str, Engine | str], gauge: Gauge) -> Generator[Step | Morphs]:
    shelf = Shelf(plan.folder / TRIALS)
    total = len(plan.pairs) * len(plan.contenders)
    measured = len(plan.contenders) if plan.memory else 0
    outcomes: list[Outcome] = []
    rows: dict[str, bytes] = {}
    for pair in plan.pairs:
        known = Known.of(pair, plan.frames)
        rows[f"{pair.group}/{pair.name}"] = known.row
        studied: dict[Diffusion, float] = {}
        for contender in plan.contenders:
            label = f"{pair.name}: {contender.name}"
            yield Step(label, len(outcomes), total + measured)
            outcome = shelf.load(contender, known, gauge)
            if outcome is None:
                drawing = _drawn(engines[contender.engine], contender, known, gauge, studied)
                outcome = yield from _announced(drawing, label, len(outcomes), total + measured)
                _keep(shelf, contender, known, gauge, outcome)
            studied |= _study(contender, outcome)
            outcomes.append(outcome)
    peaks: dict[str, float | None] = {}
    for number, contender in enumerate(plan.contenders if plan.memory else ()):
        yield Step(f"memory: {contender.name}", total + number, total + measured)
        peaks[contender.name] = memory.peak(contender.engine, plan.pairs[0], diffusion=contender.diffusion)
    records = tuple(outcome.record for outcome in outcomes)
    bench = Bench(plan.title, measures(gauge), records, peaks if plan.memory else None)
    yield Morphs(bench, tuple(outcomes), rows, gauge.name, plan.frames, _settings(plan))


def _drawn(
    engine: Engine | str,
    contender: Contender,
    known: Known,
    gauge: Gauge,
    studied: Mapping[Diffusion, float],
) -> Generator[object, None, Outcome]:
    if isinstance(engine, str):
        return cannot(contender, known, engine)
    before = studied.get(_fitting(contender.diffusion), 0.0) if contender.diffuses else 0.0
    return (yield from tried(engine, contender, known, gauge, studied=before))


def _announced(
    drawing: Generator[object, None, Outcome], label: str, done: int, total: int
) -> Generator[Step, None, Outcome]:
    """Forwards what the engine is at as Steps, and returns the outcome."""
    while True:
        try:
            progress = next(drawing)
        except StopIteration as stop:
            return stop.value
        yield Step(f"{label}, {getattr(progress, 'phase', '')}", done, total)


def _keep(shelf: Shelf, contender: Contender, known: Known, gauge: Gauge, outcome: Outcome) -> None:
    try:
        shelf.save(contender, known, gauge, outcome)
    except OSError as error:
        raise OutputUnwritable(name=shelf.folder, detail=error.strerror or error) from error


def _fitting(diffusion: Diffusion) -> Diffusion:
    """The settings that shape a fit alone: rungs for which they are the same share it."""
    plainly = Diffusion()
    unfitting = ("attention", "adain", "reschedule", "pace_rounds", "keep_ends")
    others = {name: getattr(plainly, name) for name in unfitting}
    return replace(diffusion, **others)


def _study(contender: Contender, outcome: Outcome) -> dict[Diffusion, float]:
    """How long the study took, for the rungs that find its fits; nothing where there was none."""
    seconds, again = (outcome.record.figures.get(key) for key in ("seconds", "again"))
    if not contender.diffuses or seconds is None or again is None:
        return {}
    return {_fitting(contender.diffusion): seconds - again}


def _settings(plan: Plan) -> tuple[tuple[str, str], ...]:
    """What the page tells about how it was drawn."""
    whole, drawn = plan.whole, (("Pairs", str(len(plan.pairs))), ("Drawings", str(plan.frames)))
    if not any(contender.diffuses for contender in plan.contenders):
        return drawn
    return (
        *drawn,
        ("Checkpoint", Path(whole.checkpoint).name),
        ("Steps", str(whole.steps)),
        ("LoRA steps", str(whole.lora_steps)),
        ("LoRA learning rate", f"{whole.lora_lr:g}"),
        ("Refinements", str(whole.refinements)),
        ("Rounds of pacing", f"up to {whole.pace_rounds}"),
        ("Lambda", f"{whole.attention:g}"),
    )


def write(morphs: Morphs, folder: Path) -> Path:
    """Leaves `index.html` and `bench.json` in a folder, which is made; gives the page's path.

    Raises OutputUnwritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / "index.html"
        index.write_text(page(morphs), encoding="utf-8", errors="replace")
        text = json.dumps(as_json(morphs), indent=1)
        (folder / "bench.json").write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or error) from error
    return index


def forget(folder: Path) -> None:
    """Drops the outcomes that earlier runs kept in a folder."""
    Shelf(folder / TRIALS).clear()
