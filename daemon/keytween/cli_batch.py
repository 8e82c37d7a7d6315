"""The `shot`, `batch` and `top` commands: tweens from a shots file. Parses, calls, prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytween.terminal import command, print_json, say

if TYPE_CHECKING:
    from keytween.shots.pool import Event, Limits
    from keytween.shots.running import Choice, Executor, Line, Summary
    from keytween.shots.shot import Batch, Shot

EXIT_SHOTS, EXIT_BUSY = 8, 75
"""Exit codes: some shots failed; another process makes the shot, a later try makes sense (EX_TEMPFAIL)."""


def add(commands: Any) -> None:
    """Adds `shot`, `batch` and `top` to the command line."""
    _add_shot(commands)
    _add_batch(commands)
    _add_top(commands)


def _add_shot(commands: Any) -> None:
    shot = command(commands, "shot", "make one shot of a shots file, or what is missing of it", _shot)
    add = shot.add_argument
    add("manifest", metavar="MANIFEST", type=Path, help="the shots file: TOML, CSV or OpenTimelineIO")
    add("id", metavar="ID", nargs="?", help="which shot")
    add("--index", type=int, help="which shot, by its place in the file from 0: for arrays of jobs")
    _add_places(add)


def _add_places(add: Callable[..., Any]) -> None:
    add("-o", "--output", type=Path, help="folder for everything (default: the file's own)")
    add("--daemon", action="store_true", help="have the running daemon draw, on its devices")
    add("--overwrite", action="store_true", help="replace frames that are there from something else")
    add("--fresh", action="store_true", help="make everything again, also what is done")


def _add_batch(commands: Any) -> None:
    batch = command(commands, "batch", "make all shots of a shots file that are not done", _batch)
    add = batch.add_argument
    add("shots", metavar="SHOTS", type=Path, help="the shots file: TOML, CSV or OpenTimelineIO")
    _add_places(add)
    add("--dry-run", action="store_true", help="print the plan, and make nothing")
    add("--only", action="append", default=[], metavar="SHOT", help="a shot or a pattern; again for more")
    add(
        "--skip-done",
        action="store_true",
        help="trust the records of what is done, and do not look at its files",
    )
    add("--retry-failed", action="store_true", help="only the shots that failed")
    add("--priority", action="append", default=[], metavar="SHOT", help="first these; again for more")
    add("--jobs", type=int, help="shots at once (default: one for each core, or GPU)")
    add("--deadline", type=float, default=0.0, metavar="SECONDS", help="give a shot up after so long")
    add("--attempts", type=int, default=2, help="how often a shot's process may die (default: 2)")
    add("--ray", metavar="ADDRESS", help="make the shots on this Ray cluster")
    add("--memory", type=float, default=0.0, metavar="MB", help="end a shot that takes more memory")


def _add_top(commands: Any) -> None:
    top = command(commands, "top", "watch this machine, the daemon and a batch", _top)
    top.add_argument(
        "output", metavar="OUTPUT", type=Path, nargs="?", help="a batch's output, or its shots file"
    )
    top.add_argument("--once", action="store_true", help="print what there is to see, and exit")


# ---- one shot


def _shot(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.shots import by_daemon
    from keytween.shots.reading import read
    from keytween.shots.unit import Maker

    batch = read(options.manifest, output=options.output)
    shot = _chosen(batch, options)
    config = load()
    if options.daemon:
        by_daemon.check(config)
    chosen = {name: getattr(options, name) for name in ("overwrite", "fresh", "daemon")}
    maker = Maker(config, batch.results, **chosen)
    record, made = maker.make(shot, _openjd(options))
    if options.json:
        print_json(record)
    what = f"{record['drawn']} drawings made" if made else "nothing to do"
    say(options, f"{shot.id}: {what}, {len(record['frames'])} frames, {record['seconds']:.1f} s")
    return 0


def _chosen(batch: Batch, options: argparse.Namespace) -> Shot:
    from keytween.shots.reading import find
    from keytween_wire.errors import BadSetting, UnknownShot

    if (options.id is None) == (options.index is None):
        raise BadSetting(name="shot", value=options.id, detail="give its id, or --index")
    if options.id is not None:
        return find(batch, options.id)
    names = [*(shot.id for shot in batch.shots), *(fault.shot for fault in batch.faults)]
    if not 0 <= options.index < len(names):
        raise UnknownShot(shot=f"number {options.index}", name=batch.source, choices=f"{len(names)} shots")
    return find(batch, names[options.index])


def _openjd(options: argparse.Namespace) -> Callable[[float, str], None]:
    """Progress as Open Job Description's runners read it from standard output; nothing with --json."""
    said = {"share": -1.0, "phase": ""}

    def advance(share: float, phase: str) -> None:
        if options.json:
            return
        if phase != said["phase"]:
            sys.stdout.write(f"openjd_status: {phase}\n")
        if abs(share - said["share"]) >= 0.001:
            sys.stdout.write(f"openjd_progress: {100 * share:.1f}\n")
        said.update(share=share, phase=phase)
        sys.stdout.flush()

    return advance


# ---- a batch


def _batch(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.shots import running
    from keytween.shots.reading import read

    batch = read(options.shots, output=options.output)
    lines = running.lay_out(batch, load(), _choice(options))
    if options.dry_run:
        return _show_plan(options, batch, lines)
    executor = _executor(options, batch)
    made: Any = running.carry_out(batch, lines, executor)
    try:
        with _telling(options, lines) as tell, closing(made) as events:
            for event in events:
                if isinstance(event, running.Summary):
                    return _finish(options, event)
                tell(event)
    except KeyboardInterrupt:
        _leave_page(batch)
        raise
    raise AssertionError("a batch ends with its summary")


def _executor(options: argparse.Namespace, batch: Batch) -> Executor:
    from keytween_wire.errors import BadSetting

    if options.ray and options.daemon:
        raise BadSetting(name="daemon", value="yes", detail="it cannot go with --ray")
    return _on_cluster(options, batch) if options.ray else _local(options, batch)


def _leave_page(batch: Batch) -> None:
    """The report of what there is, for a batch that is broken off."""
    from contextlib import suppress

    from keytween.shots import page
    from keytween_wire.errors import KeytweenError

    with suppress(KeytweenError):
        page.write(batch)


def _choice(options: argparse.Namespace) -> Choice:
    from keytween.shots.running import Choice

    return Choice(
        only=tuple(options.only),
        first=tuple(options.priority),
        skip_done=options.skip_done,
        retry_failed=options.retry_failed,
        fresh=options.fresh,
        overwrite=options.overwrite,
    )


def _limits(options: argparse.Namespace, jobs: int) -> Limits:
    from keytween.shots.pool import Limits
    from keytween.shots.shot import check_range

    check_range("jobs", jobs, 1, 1024)
    check_range("attempts", options.attempts, 1, 1000)
    check_range("deadline", options.deadline, 0, 1e9)
    check_range("memory", options.memory, 0, 1e9)
    return Limits(
        jobs=jobs,
        attempts=options.attempts,
        deadline=options.deadline,
        memory_mb=options.memory,
        overwrite=options.overwrite,
        fresh=options.fresh,
        daemon=options.daemon,
    )


def _local(options: argparse.Namespace, batch: Batch) -> Executor:
    from keytween.config import load
    from keytween.devices import visible
    from keytween.shots import by_daemon, pool

    found = visible()
    if options.daemon:
        by_daemon.check(load())
    jobs = _jobs(options, batch, found) if options.jobs is None else options.jobs
    limits = _limits(options, jobs)
    return lambda shots: pool.run(batch, shots, limits, gpus=found)


def _jobs(options: argparse.Namespace, batch: Batch, found: Sequence[str]) -> int:
    """How many shots at once; a daemon shall have some in its queue while others are read and written."""
    from keytween.shots import pool

    return max(1, len(found)) + 2 if options.daemon else pool.jobs_for(batch.shots, found)


def _on_cluster(options: argparse.Namespace, batch: Batch) -> Executor:
    from keytween.shots import cluster

    limits = _limits(options, 1)
    return lambda shots: cluster.run(batch, shots, limits, address=options.ray)


# ---- what is printed


def _show_plan(options: argparse.Namespace, batch: Batch, lines: Sequence[Line]) -> int:
    from keytween.devices import visible
    from keytween.shots import running

    jobs = options.jobs or _jobs(options, batch, visible())
    making = [line for line in lines if line.to_make]
    known = [line.seconds for line in making if line.seconds is not None]
    whole = {
        "shots": [_line_json(line) for line in lines],
        "to_make": len(making),
        "drawings": sum(line.planned.request.total for line in making if line.planned),
        "estimate_s": round(sum(known) / max(1, min(jobs, len(making))), 1)
        if len(known) == len(making)
        else None,
        "jobs": jobs,
        "bytes_needed": running.room_needed(lines),
        "bytes_free": running.room_left(batch.output),
        "output": str(batch.output),
    }
    if options.json:
        print_json(whole)
    else:
        _print_plan(options, lines, whole)
    return EXIT_SHOTS if any(line.error for line in lines) else 0


def _line_json(line: Line) -> dict[str, Any]:
    planned = line.planned
    found: dict[str, Any] = {"shot": line.shot, "state": line.state, "estimate_s": line.seconds}
    if planned:
        found |= {
            "engine": planned.request.engine,
            "keyframes": len(planned.paths),
            "drawings": planned.request.total,
            "frames": len(planned.plan.cels),
        }
    if line.error:
        found["error"] = {"code": line.error.code, "message": line.error.message}
    return found


def _print_plan(options: argparse.Namespace, lines: Sequence[Line], whole: dict[str, Any]) -> None:
    for line in lines:
        planned = line.planned
        if line.error:
            say(options, f"{line.shot:24} cannot be made: {line.error.message} [{line.error.code}]")
        elif planned:
            counts = f"{len(planned.paths)} keyframes, {planned.request.total} drawings"
            counts += f", {len(planned.plan.cels)} frames"
            about = f", about {line.seconds:.0f} s" if line.to_make and line.seconds is not None else ""
            say(options, f"{line.shot:24} {line.state:11} {planned.request.engine:11} {counts}{about}")
        else:
            say(options, f"{line.shot:24} {line.state}")
    estimate = whole["estimate_s"]
    about = (
        f"about {_clock(estimate)} with {whole['jobs']} at once"
        if estimate is not None
        else "no estimate yet"
    )
    say(options, f"{whole['to_make']} shots to make, {whole['drawings']} drawings, {about}.")
    if whole["bytes_needed"] > whole["bytes_free"]:
        free, needed = (f"{whole[name] / 1e6:,.1f} MB" for name in ("bytes_free", "bytes_needed"))
        room = f"{free} are free and about {needed} needed in {whole['output']}"
        say(options, f"The disk may be too small: {room}.")


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def _telling(options: argparse.Namespace, lines: Sequence[Line]) -> Iterator[Callable[[Event], None]]:
    """A line for each shot that ends, and on a terminal a bar over all drawings; nothing with --json."""
    if options.json:
        yield lambda event: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    totals = {line.shot: line.planned.request.total for line in lines if line.to_make and line.planned}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("shots", total=sum(totals.values()))
        shares: dict[str, float] = {}

        def tell(event: Event) -> None:
            shares[event.shot] = 1.0 if event.kind not in ("progress", "busy") else event.share
            done = sum(share * totals.get(shot, 0) for shot, share in shares.items())
            bar.update(task, completed=round(done))
            if event.kind != "progress":
                console.print(escape(_said(event)), soft_wrap=True, highlight=False)

        yield tell


def _said(event: Event) -> str:
    if event.error is not None:
        wait = " It is tried again." if event.kind == "busy" else ""
        return f"{event.shot}: {event.error.message} [{event.error.code}]{wait}"
    record = event.record or {}
    return f"{event.shot}: {event.kind}, {record.get('drawn', 0)} drawings, {record.get('seconds', 0):.1f} s"


def _finish(options: argparse.Namespace, summary: Summary) -> int:
    from keytween.shots import page

    report = page.write(summary.batch)
    filled = _conform(summary.batch)
    counts = {"done": len(summary.done), "unchanged": len(summary.unchanged), "failed": len(summary.failed)}
    failed = [{"shot": f.shot, "code": f.error.code, "message": f.error.message} for f in summary.failed]
    if options.json:
        whole = {**counts, "failures": failed, "seconds": round(summary.seconds, 3), "timeline": filled}
        print_json({**whole, "output": str(summary.batch.output), "report": str(report)})
        return EXIT_SHOTS if failed else 0
    made = f"{counts['done']} shots made, {counts['unchanged']} were done already"
    say(options, f"{made}, in {_clock(summary.seconds)}.")
    say(options, f"Report: {report}")
    if filled:
        say(options, f"Timeline: {filled}")
    if failed:
        from keytween_wire.errors import ShotsFailed

        total = sum(counts.values())
        names = ", ".join(f["shot"] for f in failed[:10]) + (" ..." if len(failed) > 10 else "")
        raise ShotsFailed(failed=len(failed), total=total, names=names)
    return 0


def _conform(batch: Batch) -> Path | None:
    """The filled timeline, where the shots came from one."""
    if batch.source.suffix.lower() not in (".otio", ".otioz"):
        return None
    from keytween.shots import conform

    return conform.write(batch)


# ---- watching


def _top(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from keytween.config import load
    from keytween.shots import watching
    from keytween_wire.errors import ExtraMissing

    output = _output_of(options.output) if options.output else None
    if options.json or options.once:
        seen = watching.look(load(), output)
        if options.json:
            print_json(asdict(seen))
        for line in watching.lines(seen):
            say(options, line)
        return 0
    try:
        from keytween.shots.screen import Top
    except ImportError as error:
        raise ExtraMissing(name="Textual", detail=error, extra="top") from error
    Top(load(), output).run()
    return 0


def _output_of(path: Path) -> Path:
    """The folder itself, or where the batch of a shots file puts its results."""
    if path.is_dir():
        return path
    from keytween.shots.reading import read

    return read(path).output
