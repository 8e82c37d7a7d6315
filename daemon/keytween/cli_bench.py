"""The `bench` commands: engines against scenes whose in-betweens are known. Parses, calls, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytween.terminal import command, print_json, say

if TYPE_CHECKING:
    from keytween.bench.runs import Finished
    from keytween.bench.scenes import Scene
    from keytween.bench.tables import Table
    from keytween.bench.trial import Step
    from keytween_wire.messages import Diffusion


def add(commands: Any) -> None:
    """Adds `bench` and its kinds to the command line."""
    text = "measure engines on scenes whose in-betweens are known"
    bench = commands.add_parser("bench", help=text, description=text[0].upper() + text[1:] + ".")
    kinds = bench.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_flow(kinds)


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
        finished = _followed(options, run)
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


def _followed(options: argparse.Namespace, run: Iterable[Step | Finished]) -> Finished:
    """The end of a run, with a bar and an estimate until then."""
    from keytween.bench.runs import Finished

    with _bar(options) as advance:
        for event in run:
            if isinstance(event, Finished):
                return event
            advance(event)
    raise AssertionError("a run ends with Finished")


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


def _print_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Printed
    from rich.text import Text

    printed = Printed(title=Text(table.caption), title_justify="left", box=None)
    for number, head in enumerate(table.heads):
        printed.add_column(Text(head), justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(Text(cell.text, "bold" if cell.best else "") for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(printed, "")


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
