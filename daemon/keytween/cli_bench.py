"""The `bench` commands: engines against scenes whose in-betweens are known. Parses, calls, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from keytween.terminal import command, print_json, say

if TYPE_CHECKING:
    from keytween.bench.morph_runs import Morphs
    from keytween.bench.pairs import Pair
    from keytween.bench.runs import Finished
    from keytween.bench.scenes import Scene
    from keytween.bench.tables import Table
    from keytween.bench.trial import Step
    from keytween_wire.messages import Diffusion

T = TypeVar("T")


def add(commands: Any) -> None:
    """Adds `bench` and its kinds to the command line."""
    text = "measure engines on scenes whose in-betweens are known"
    bench = commands.add_parser("bench", help=text, description=text[0].upper() + text[1:] + ".")
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_flow(kinds)
    _add_morph(kinds)


def _add_flow(kinds: Any) -> None:
    flow = command(kinds, "flow", "measure motion: the bench's own scenes, or your pictures", _flow)
    add = flow.add_argument
    add("-o", "--output", type=Path, default=Path("keytween-bench"), help="folder for page and figures")
    add("--engine", action="append", dest="engines", metavar="NAME", help="an engine; again for more")
    add("--scene", action="append", dest="scenes", metavar="NAME", help="a scene; again for more")
    add("--list", action="store_true", help="list the scenes and engines, and measure nothing")
    add("--size", type=int, default=384, help="side in pixels of the bench's own scenes (default: 384)")
    add("--triplets", type=Path, metavar="FOLDER", help="folders of three: first, true middle and last")
    add("--sequence", metavar="PATTERN", help="numbered frames, such as walk.####.png")
    add("--every", type=int, default=4, metavar="K", help="every k-th frame is a keyframe (default: 4)")
    add("--memory", action="store_true", help="measure each engine's peak memory as well")
    add("--checkpoint", help="for diffmorpher: a checkpoint's folder, or its name in `models list`")
    add("--preset", default="final", help="for diffmorpher: draft, final or paper (default: final)")


def _add_morph(kinds: Any) -> None:
    text = "measure morphs: held-out toons, or your pairs, with each switch of the method"
    morph = command(kinds, "morph", text, _morph)
    add = morph.add_argument
    default = Path("keytween-bench-morph")
    add("-o", "--output", type=Path, default=default, help="folder for page, figures and kept outcomes")
    add("--pairs", type=int, default=24, metavar="N", help="pairs of each set (default: 24)")
    add("--set", action="append", dest="sets", metavar="NAME", help="a set of pairs; again for more")
    add("--folder", type=Path, help="your own pairs instead, or MorphBench")
    add("--engine", action="append", dest="engines", metavar="NAME", help="an engine; again for more")
    add("--switches", action="append", metavar="NAME", help="a rung of diffmorpher's ladder; again for more")
    add("--checkpoint", default="toon", help="for diffmorpher: a checkpoint's folder or name (default: toon)")
    add("--steps", type=int, default=25, help="for diffmorpher: denoising steps (default: 25)")
    add("--lora-steps", type=int, default=80, help="for diffmorpher: steps of study (default: 80)")
    add("--lora-lr", type=float, default=1e-3, help="for diffmorpher: its learning rate (default: 0.001)")
    add("--refinements", type=int, default=1, help="for diffmorpher: of each inversion step (default: 1)")
    add("--pace-rounds", type=int, default=9, help="for diffmorpher: measurings of the pace (default: 9)")
    add("--frames", type=int, default=9, help="drawings of a morph, both ends included (default: 9)")
    add("--size", type=int, default=128, help="side in pixels of the toons (default: 128)")
    add("--memory", action="store_true", help="measure each contender's peak memory as well")
    add("--fresh", action="store_true", help="measure again what an earlier run has left in the folder")


def _morph(options: argparse.Namespace) -> int:
    from keytween.bench import ladder, morph_runs

    whole = _whole(options)
    contenders = ladder.contenders(options.engines or (), options.switches or (), whole)
    pairs, title = _pairs(options)
    plan = morph_runs.Plan(
        title, pairs, contenders, whole, options.frames, options.output, memory=options.memory
    )
    if options.fresh:
        morph_runs.forget(options.output)
    try:
        with closing(morph_runs.run(plan)) as run:
            morphs = _ended(options, run, morph_runs.Morphs)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"What is finished is kept in {options.output}; the same command goes on from here.\n"
        )
        raise
    page = morph_runs.write(morphs, options.output)
    _report_morphs(options, morphs, page)
    return 0


def _pairs(options: argparse.Namespace) -> tuple[tuple[Pair, ...], str]:
    """The pairs that were asked for, and what to call them."""
    from keytween.bench import pairs
    from keytween_wire.errors import BadSetting

    if options.folder:
        if options.sets:
            detail = "it is for the bench's own pairs alone, and cannot go with --folder"
            raise BadSetting(name="set", value=options.sets[0], detail=detail)
        return pairs.in_folder(options.folder)[: max(0, options.pairs) or None], options.folder.name
    return pairs.chosen(tuple(options.sets or ()), options.pairs, size=options.size), "Morphs"


def _whole(options: argparse.Namespace) -> Diffusion:
    """Every switch on; a checkpoint that is not there leaves `diffmorpher` to say so."""
    from keytween.config import load
    from keytween.models import resolve
    from keytween_wire.errors import CheckpointUnusable
    from keytween_wire.messages import Diffusion

    try:
        folder = resolve(load(), options.checkpoint)
    except CheckpointUnusable:
        folder = options.checkpoint
    return Diffusion(
        checkpoint=folder,
        steps=options.steps,
        lora_steps=options.lora_steps,
        lora_lr=options.lora_lr,
        refinements=options.refinements,
        pace_rounds=options.pace_rounds,
    )


def _report_morphs(options: argparse.Namespace, morphs: Morphs, page: Path) -> None:
    from keytween.bench import morph_page, tables

    if options.json:
        print_json({**morph_page.as_json(morphs), "report": str(page)})
        return
    for table in morph_page.shown(morphs):
        _print_table(table, width=180)
    say(options, morph_page.CAVEAT)
    for line in tables.troubles(morphs.bench):
        say(options, line)
    say(options, f"Report: {page}")


def _flow(options: argparse.Namespace) -> int:
    from keytween.bench import runs

    if options.list:
        return _list(options)
    scenes, title = _material(options)
    size = options.size if options.memory else None
    run = runs.run(
        scenes, options.engines or (), title=title, memory_size=size, diffusion=_diffusion(options)
    )
    with closing(run):
        finished = _ended(options, run, runs.Finished)
    page = runs.write(finished, options.output)
    _report(options, finished, page)
    return 0


def _material(options: argparse.Namespace) -> tuple[tuple[Scene, ...], str]:
    """The scenes that were asked for, and what to call them; the user's own in place of the bench's."""
    from keytween.bench import own, runs
    from keytween_wire.errors import BadSetting

    if options.triplets and options.sequence:
        raise BadSetting(name="sequence", value=options.sequence, detail="it cannot go with --triplets")
    if options.triplets or options.sequence:
        if options.scenes:
            raise BadSetting(
                name="scene", value=options.scenes[0], detail="it is for the bench's own scenes alone"
            )
        if options.triplets:
            return own.triplets(options.triplets), f"Flow: {options.triplets.name}"
        return own.sequence(options.sequence, options.every), f"Flow: {Path(options.sequence).name}"
    return runs.chosen(options.scenes or (), size=options.size), "Flow"


def _diffusion(options: argparse.Namespace) -> Diffusion:
    from keytween.config import load
    from keytween.models import resolve
    from keytween_wire.errors import BadSetting
    from keytween_wire.messages import Diffusion

    if options.preset not in Diffusion.PRESETS:
        choices = ", ".join(sorted(Diffusion.PRESETS))
        raise BadSetting(name="preset", value=options.preset, detail=f"choose one of {choices}")
    chosen: dict[str, Any] = dict(Diffusion.PRESETS[options.preset])
    if options.checkpoint:
        chosen["checkpoint"] = resolve(load(), options.checkpoint)
    return Diffusion(**chosen)


def _ended(options: argparse.Namespace, run: Iterable[Step | T], cls: type[T]) -> T:
    """The end of a run, which is of that class; with a bar and an estimate until then."""
    with _bar(options) as advance:
        for event in run:
            if isinstance(event, cls):
                return event
            advance(event)
    raise AssertionError("a run ends with its result")


@contextmanager
def _bar(options: argparse.Namespace) -> Iterator[Any]:
    """A bar that says what is drawn, and how long the rest may take; nothing with --json."""
    if options.json:
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)

        def advance(step: Step) -> None:
            bar.update(task, description=step.phase, completed=step.done, total=step.total)

        yield advance


def _report(options: argparse.Namespace, finished: Finished, page: Path) -> None:
    from keytween.bench import tables

    if options.json:
        print_json({**tables.as_json(finished.bench), "report": str(page)})
        return
    shown = [tables.by_scene(finished.bench), tables.by_group(finished.bench)]
    gains = tables.gains(finished.bench)
    for table in (*shown, *([gains] if gains else []), tables.overall(finished.bench)):
        _print_table(table)
    for line in tables.troubles(finished.bench):
        say(options, line)
    say(options, f"Report: {page}")


def _print_table(table: Table, *, width: int = 120) -> None:
    from rich.console import Console
    from rich.table import Table as Printed
    from rich.text import Text

    # Not as the table's own title, which would be broken to a narrow table's width.
    printed = Printed(box=None)
    for number, head in enumerate(table.heads):
        printed.add_column(Text(head), justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(Text(cell.text, "bold" if cell.best else "") for cell in row))
    console = Console(width=None if sys.stdout.isatty() else width)
    console.print(Text(table.caption, "italic"), soft_wrap=True)
    console.print(printed, "")


def _list(options: argparse.Namespace) -> int:
    """Prints the bench's scenes and the engines it knows, with why some cannot run."""
    from keytween import engines
    from keytween.bench import rivals, runs

    scenes = runs.chosen((), size=options.size)
    infos = (*engines.engine_infos(), *rivals.infos())
    if options.json:
        print_json(
            {
                "scenes": [{"name": s.name, "group": s.group, "textured": s.textured} for s in scenes],
                "engines": [{"name": i.name, "available": i.available, "reason": i.reason} for i in infos],
            }
        )
        return 0
    for scene in scenes:
        say(options, f"{scene.name:26} {scene.group}, {'textured' if scene.textured else 'flat'}")
    say(options, "")
    for info in infos:
        say(options, f"{info.name:26} {info.summary if info.available else info.reason}")
    return 0
