"""The `jobs` and `stop` commands: what the running daemon has to do. Parses, calls, prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keytween.terminal import command, print_json, say

if TYPE_CHECKING:
    from keytween_wire.client import Client
    from keytween_wire.messages import JobInfo


def add(commands: Any) -> None:
    """Adds `jobs` and `stop` to the command line."""
    text = "list, cancel, retry or clear jobs"
    jobs = commands.add_parser("jobs", help=text, description=f"{text.capitalize()}.")
    actions = jobs.add_subparsers(title="actions", metavar="ACTION", required=True)
    command(actions, "list", "list the daemon's jobs, newest first", _jobs_list)
    cancel = command(actions, "cancel", "cancel jobs that wait or run", _jobs_cancel)
    cancel.add_argument("jobs", nargs="*", metavar="JOB", help="job ids, or their first digits")
    cancel.add_argument("--all", action="store_true", help="every job that has not ended")
    retry = command(actions, "retry", "let jobs that failed or were cancelled go on", _jobs_retry)
    retry.add_argument("jobs", nargs="*", metavar="JOB", help="job ids, or their first digits")
    retry.add_argument("--all", action="store_true", help="every job that failed")
    clear = command(actions, "clear", "forget ended jobs and their files", _jobs_clear)
    clear.add_argument(
        "jobs", nargs="*", metavar="JOB", help="job ids, or their first digits (default: all ended)"
    )
    command(commands, "stop", "ask the daemon to exit; running jobs go on at its next start", _stop)


def _jobs_list(options: argparse.Namespace) -> int:
    with daemon() as client:
        jobs = client.jobs()
    if options.json:
        print_json([_job_json(job) for job in jobs])
    elif not jobs:
        say(options, "No jobs.")
    else:
        _print_jobs(jobs)
    return 0


def _job_json(job: JobInfo) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(job), "state": job.state.value}


def _print_jobs(jobs: Sequence[JobInfo]) -> None:
    from rich.console import Console
    from rich.table import Table

    from keytween_wire.errors import from_wire

    table = Table("job", "name", "state", "engine", "frames", "phase", "error", box=None)
    for job in jobs:
        error = from_wire(job.error.code, job.error.values).message if job.error else ""
        frames = f"{job.frames_done}/{job.frames_total}"
        table.add_row(job.job_id[:8], job.label, job.state.value, job.engine, frames, job.phase, error)
    Console().print(table)


def _jobs_cancel(options: argparse.Namespace) -> int:
    _refuse_nothing(options)
    with daemon() as client:
        chosen = _chosen(client, options, lambda job: not job.state.ended)
        for job_id in chosen:
            client.cancel(job_id)
    return _report_count(options, "cancelled", len(chosen))


def _jobs_retry(options: argparse.Namespace) -> int:
    from keytween_wire.messages import JobState

    _refuse_nothing(options)
    with daemon() as client:
        chosen = _chosen(client, options, lambda job: job.state is JobState.FAILED)
        count = sum(client.retry(job_id) for job_id in chosen)
    return _report_count(options, "tried again", count)


def _jobs_clear(options: argparse.Namespace) -> int:
    with daemon() as client:
        if options.jobs:
            count = sum(client.clear(_find_job(client, job)) for job in options.jobs)
        else:
            count = client.clear()
    return _report_count(options, "cleared", count)


def _refuse_nothing(options: argparse.Namespace) -> None:
    from keytween_wire.errors import BadSetting

    if not options.jobs and not options.all:
        raise BadSetting(name="jobs", value="(none)", detail="name the jobs, or add --all")


def _chosen(client: Client, options: argparse.Namespace, meant: Callable[[JobInfo], bool]) -> list[str]:
    """The ids of the jobs that were named, of all that are `meant` with --all."""
    if options.all:
        return [job.job_id for job in client.jobs() if meant(job)]
    return [_find_job(client, job) for job in options.jobs]


def _report_count(options: argparse.Namespace, verb: str, count: int) -> int:
    if options.json:
        print_json({verb: count})
    say(options, f"{count} job{'' if count == 1 else 's'} {verb}.")
    return 0


def _find_job(client: Client, start: str) -> str:
    """The one job whose id begins so; raises UnknownJob."""
    from keytween_wire.errors import UnknownJob

    found = [job.job_id for job in client.jobs() if job.job_id.startswith(start)]
    if len(found) != 1:
        raise UnknownJob(job_id=start)
    return found[0]


@contextmanager
def daemon() -> Iterator[Client]:
    """A client of the running daemon; raises DaemonError."""
    from keytween.config import load
    from keytween_wire.client import Client
    from keytween_wire.connection import Connection

    with Client(Connection.load(load().connection)) as client:
        client.hello(name="keytween")
        yield client


def _stop(options: argparse.Namespace) -> int:
    from keytween_wire.messages import Stop

    with daemon() as client:
        client.ask(Stop())
    say(options, "The daemon is stopping; running jobs go on at its next start.")
    return 0
