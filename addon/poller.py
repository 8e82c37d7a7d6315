# SPDX-License-Identifier: GPL-3.0-or-later
"""The one timer: drains the socket, writes frames, fills strips. Panels draw from `STATUS` alone.

Undo and loading replace Blender's data, so strips are found by job id and never kept. A job whose
strip was undone goes on: its frames land in its folder, and redo fills the strip from there.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from keytween_wire.errors import DaemonNotRunning, KeytweenError, UnknownJob, from_wire
from keytween_wire.messages import (
    Accepted,
    Cancel,
    EngineInfo,
    Failed,
    FrameMade,
    JobChanged,
    JobInfo,
    JobState,
    Message,
    Progressed,
    Submit,
    Watch,
)

from . import insert, preferences
from .insert import Tween
from .link import Link, LinkState

if TYPE_CHECKING:
    from keytween_wire.client import Received

BUDGET_S = 0.003
SOON_S, ACTIVE_S, IDLE_S, RENDERING_S = 0.01, 0.05, 0.5, 0.5
ENGINES = (
    EngineInfo("flow", "Optical flow on the processor: fast, needs no download"),
    EngineInfo("diffmorpher", "Diffusion: morphs what the pictures show; needs a graphics card"),
    EngineInfo("dissolve", "A plain cross-fade, for comparison"),
    EngineInfo("auto", "The best engine that can run"),
)
"""What the panel offers until a daemon says what it has."""


@dataclass(slots=True)
class JobView:
    """A job as this Blender sees it. The daemon's store is its owner; this is what panels draw."""

    job_id: str
    label: str
    tween: Tween
    folder: Path
    state: JobState = JobState.QUEUED
    phase: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float = -1.0
    number: int = 0
    error: KeytweenError | None = None
    files: dict[int, str] = field(default_factory=dict[int, str])
    submission: tuple[Submit, tuple[bytes, ...]] | None = None
    """Kept until the daemon has it, so that one that dies before can be asked again."""
    places: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Scene and name of its strips; checked at every use."""

    @property
    def total(self) -> int:
        """How many drawings there will be."""
        return len(self.tween.drawings)

    @property
    def factor(self) -> float:
        """How much is done, 0..1: whole drawings, and the step of the phase while there is none."""
        if self.files or not self.steps:
            return len(self.files) / self.total if self.total else 1.0
        return min(self.step / self.steps, 1.0)


@dataclass(slots=True)
class Status:
    """All that panels show, and how long the ticks took."""

    link: Link = field(default_factory=Link)
    jobs: dict[str, JobView] = field(default_factory=dict[str, JobView])
    engines: tuple[EngineInfo, ...] = ENGINES
    rendering: bool = False
    ticks: int = 0
    tick_last_ms: float = 0.0
    tick_max_ms: float = 0.0


STATUS = Status()
_asked: dict[int, str] = {}
"""Request numbers whose answer concerns a job."""
_again: set[str] = set()
"""Why strips must be filled anew at the next tick: undo, redo or load."""


# ---- what operators call


def wake() -> None:
    """Makes sure that the timer runs; in background it never would."""
    if not bpy.app.background and not bpy.app.timers.is_registered(tick):
        bpy.app.timers.register(tick, first_interval=SOON_S, persistent=True)


def submit(view: JobView) -> None:
    """Hands a job over: now, or as soon as the connection stands."""
    STATUS.jobs[view.job_id] = view
    if STATUS.link.state is LinkState.READY:
        _send(view)
    wake()


def cancel(job_id: str) -> None:
    """Asks for a job's end; one that the daemon never got ends here."""
    view = STATUS.jobs[job_id]
    if view.submission is not None and STATUS.link.state is not LinkState.READY:
        view.submission = None
        _set_state(view, JobState.CANCELLED, None)
        return
    _asked[STATUS.link.post(Cancel(job_id))] = job_id


def view_of(strip: bpy.types.Strip) -> JobView:
    """What a strip remembers, with the drawings that are on disk."""
    tween = Tween.from_json(strip[insert.TWEEN])
    folder = insert.folder_of(strip)
    view = JobView(tween.job_id, tween.label, tween, folder)
    view.state = JobState(strip.get(insert.STATE, JobState.QUEUED.value))
    view.number = int(strip.get(insert.SINCE, 0))
    if text := strip.get(insert.ERROR):
        view.error = error_from(text)
    view.files = insert.drawings_in(folder)
    return view


def adopt_strips() -> None:
    """Finds every strip that Keytween made, fills it from disk, and asks for what its job lacks."""
    for view in STATUS.jobs.values():
        view.places.clear()
    for scene, strip in insert.tween_strips():
        view = STATUS.jobs.get(strip[insert.JOB])
        if view is None:
            view = STATUS.jobs[strip[insert.JOB]] = view_of(strip)
            if not view.state.ended and STATUS.link.state is LinkState.READY:
                _watch(view)
        view.files = insert.drawings_in(view.folder) or view.files
        view.places.append((scene.name, strip.name))
        # Undo brings back the timing that the strip had; the strip decides, the view follows.
        view.tween = Tween.from_json(strip[insert.TWEEN])
        insert.fill(strip, view.tween.shown(view.files))
        _note(view, strip)


def forget_ended() -> None:
    """Takes ended jobs off the list; their strips stay."""
    for job_id in [job_id for job_id, view in STATUS.jobs.items() if view.state.ended]:
        del STATUS.jobs[job_id]


def busy() -> bool:
    """Whether any job is unfinished."""
    return any(not view.state.ended for view in STATUS.jobs.values())


def error_to(error: KeytweenError) -> str:
    """An error as text for a property."""
    return json.dumps({"code": error.code, "values": error.values})


def error_from(text: str) -> KeytweenError | None:
    """The error in such a text."""
    if not text:
        return None
    values = json.loads(text)
    return from_wire(values["code"], values["values"])


# ---- the tick


def tick() -> float | None:
    """One turn of the timer; returns when to come again, and measures itself."""
    started = time.perf_counter()
    try:
        return _turn()
    finally:
        STATUS.ticks += 1
        STATUS.tick_last_ms = (time.perf_counter() - started) * 1000
        STATUS.tick_max_ms = max(STATUS.tick_max_ms, STATUS.tick_last_ms)


def _turn() -> float:
    # Editing strips while a render reads them crashes Blender: wait, the frames wait with us.
    if STATUS.rendering or bpy.app.is_job_running("RENDER"):
        return RENDERING_S
    if _again:
        _again.clear()
        adopt_strips()
        if busy():
            _connect_quietly()
        _redraw()
        return SOON_S
    link = STATUS.link
    changed = link.step()
    took_frame = False
    try:
        handled = 0
        if link.client is not None:
            for received in link.client.poll(budget_s=BUDGET_S, most=8):
                handled += 1
                hear(received)
                if took_frame := bool(received.blobs):
                    break
    except KeytweenError as error:
        link.fail(error)
        changed = True
    if changed or handled:
        _redraw()
    if took_frame:
        return SOON_S
    moving = link.state in (LinkState.STARTING, LinkState.CONNECTING) or busy()
    return ACTIVE_S if moving else IDLE_S


def hear(received: Received) -> None:
    """Takes one message from the daemon, whichever way it was received."""
    if STATUS.link.heard(received):
        _welcome()
        return
    message = received.message
    if isinstance(message, Accepted | Failed):
        _answer(_asked.pop(received.reply_to, ""), message)
    elif isinstance(message, FrameMade | Progressed | JobChanged):
        view = STATUS.jobs.get(message.job_id)
        if view is not None:
            take_event(view, message, received.blobs)
    else:
        _asked.pop(received.reply_to, None)


def _welcome() -> None:
    """After every connect: what the daemon can do, and the jobs that were interrupted."""
    welcome = STATUS.link.welcome
    if welcome is not None and welcome.engines:
        STATUS.engines = welcome.engines
    _asked.clear()
    for view in STATUS.jobs.values():
        if view.submission is not None:
            _send(view)
        elif not view.state.ended:
            _watch(view)


def _send(view: JobView) -> None:
    assert view.submission is not None
    message, blobs = view.submission
    try:
        _asked[STATUS.link.post(message, blobs)] = view.job_id
    except DaemonNotRunning:
        return
    except KeytweenError as error:
        view.submission = None
        _set_state(view, JobState.FAILED, error)


def _watch(view: JobView) -> None:
    number = STATUS.link.post(Watch(view.job_id, since=view.number, have=tuple(sorted(view.files))))
    _asked[number] = view.job_id


def _answer(job_id: str, message: Message) -> None:
    view = STATUS.jobs.get(job_id)
    if view is None:
        return
    if isinstance(message, Accepted):
        accept(view, message.job)
        _watch(view)
    elif isinstance(message, Failed):
        error = from_wire(message.error.code, message.error.values)
        # A daemon that lost its store knows nothing of the job: what is on disk stays, no more will come.
        if view.submission is not None or isinstance(error, UnknownJob):
            view.submission = None
            _set_state(view, JobState.FAILED, error)
        else:
            view.error = error


def accept(view: JobView, job: JobInfo) -> None:
    """The daemon has the job in its store."""
    view.submission = None
    view.phase, view.step, view.steps, view.eta_s = job.phase, job.step, job.steps, job.eta_s


def take_event(view: JobView, message: Message, blobs: tuple[bytes, ...]) -> None:
    """Brings a job's event to the view, the disk and the strips."""
    if isinstance(message, FrameMade):
        if not _keep_frame(view, message, blobs):
            return
        view.number = max(view.number, message.number)
        _fill(view)
    elif isinstance(message, Progressed):
        view.phase, view.eta_s = message.phase, message.eta_s
        view.step, view.steps = message.step, message.steps
        if view.state is JobState.QUEUED:
            view.state = JobState.RUNNING
    elif isinstance(message, JobChanged):
        view.number = max(view.number, message.number)
        error = from_wire(message.error.code, message.error.values) if message.error else None
        _set_state(view, message.state, error)


def _keep_frame(view: JobView, message: FrameMade, blobs: tuple[bytes, ...]) -> bool:
    """Writes a drawing; False when it has to be sent again."""
    name = insert.drawing_name(message.index, message.suffix)
    path = view.folder / name
    if blobs:
        insert.make_folder(view.folder)
        insert.write_file(path, blobs[0])
    elif not path.is_file() or path.stat().st_size != message.size:
        # We said that we have it, but what is on disk is not it.
        view.files.pop(message.index, None)
        view.number = message.number - 1
        _watch(view)
        return False
    view.files[message.index] = name
    return True


def _set_state(view: JobView, state: JobState, error: KeytweenError | None) -> None:
    view.state, view.error = state, error
    if state.ended:
        view.phase, view.eta_s = "", -1.0
        view.places.clear()
    _fill(view)


# ---- strips


def _fill(view: JobView) -> None:
    names = view.tween.shown(view.files)
    for strip in _strips(view):
        insert.fill(strip, names)
        _note(view, strip)


def _note(view: JobView, strip: bpy.types.Strip) -> None:
    """Keeps on the strip where its job stands, so that a reload goes on from there."""
    strip[insert.SINCE] = view.number
    strip[insert.STATE] = view.state.value
    if view.error is not None:
        strip[insert.ERROR] = error_to(view.error)
    elif insert.ERROR in strip:
        del strip[insert.ERROR]


def _strips(view: JobView) -> list[bpy.types.Strip]:
    """The job's strips, where they were last or wherever they are now."""
    found = [_at(view.job_id, *place) for place in view.places]
    if found and all(strip is not None for strip in found):
        return [strip for strip in found if strip is not None]
    pairs = list(insert.tween_strips(view.job_id))
    view.places = [(scene.name, strip.name) for scene, strip in pairs]
    return [strip for _, strip in pairs]


def _at(job_id: str, scene_name: str, strip_name: str) -> bpy.types.Strip | None:
    scene = bpy.data.scenes.get(scene_name)
    editor = scene.sequence_editor if scene else None
    strip = editor.strips_all.get(strip_name) if editor else None
    return strip if strip is not None and strip.get(insert.JOB) == job_id else None


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "SEQUENCE_EDITOR":
                area.tag_redraw()


# ---- handlers


@bpy.app.handlers.persistent
def _on_undo(*_: object) -> None:
    _again.add("undo")
    wake()


@bpy.app.handlers.persistent
def _on_load(*_: object) -> None:
    """Another file: its strips are the jobs to show, and unfinished ones are watched on."""
    STATUS.jobs.clear()
    _asked.clear()
    STATUS.rendering = False
    _again.add("load")
    wake()


@bpy.app.handlers.persistent
def _on_render_start(*_: object) -> None:
    STATUS.rendering = True


@bpy.app.handlers.persistent
def _on_render_end(*_: object) -> None:
    STATUS.rendering = False


def _handlers() -> tuple[tuple[list[object], object], ...]:
    handlers = bpy.app.handlers
    return (
        (handlers.undo_post, _on_undo),
        (handlers.redo_post, _on_undo),
        (handlers.load_post, _on_load),
        (handlers.render_init, _on_render_start),
        (handlers.render_complete, _on_render_end),
        (handlers.render_cancel, _on_render_end),
    )


def _connect_quietly() -> None:
    """Connects to a daemon that runs already; that there is none is no news."""
    if STATUS.link.state is LinkState.OFF and (busy() or preferences.get().auto_connect):
        try:
            STATUS.link.connect()
        except DaemonNotRunning:
            pass
        except KeytweenError as error:
            STATUS.link.fail(error)
    wake()


def register() -> None:
    """Hooks in; the first connect waits until Blender is up."""
    global STATUS
    STATUS = Status()
    for handlers, function in _handlers():
        handlers.append(function)
    if not bpy.app.background:
        _again.add("load")
        bpy.app.timers.register(_connect_quietly, first_interval=1.0)


def unregister() -> None:
    """Unhooks, and closes the socket at once so that Blender can quit."""
    for handlers, function in _handlers():
        if function in handlers:
            handlers.remove(function)
    for function in (tick, _connect_quietly):
        if bpy.app.timers.is_registered(function):
            bpy.app.timers.unregister(function)
    STATUS.link.close()
    STATUS.jobs.clear()
    _asked.clear()
    _again.clear()
