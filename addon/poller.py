# SPDX-License-Identifier: GPL-3.0-or-later
"""The one timer: drains the socket, writes frames, fills strips. Panels draw from `STATUS` alone.

Undo and loading replace Blender's data, so strips are found by job id and never kept. A job whose
strip was undone goes on: its frames land in its folder, and redo fills the strip from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import bpy

from keytween_wire.errors import DaemonNotRunning, JobError, KeytweenError, UnknownJob, from_wire
from keytween_wire.messages import (
    Accepted,
    Cancel,
    Failed,
    FrameMade,
    JobChanged,
    JobInfo,
    JobState,
    Message,
    Progressed,
    Watch,
)

from . import insert
from .drawings import Shelf, drawing_name
from .link import LinkState
from .memory import Record, Tween
from .status import JobView, Status, error_to, views_of

if TYPE_CHECKING:
    from keytween_wire.client import Client, Received

BUDGET_S = 0.003
REFRESH_S, SLOWEST_REFRESH_S = 0.25, 2.0
"""Strips and panels follow what arrives at this pace: every change of a strip makes Blender draw anew,
and while it draws no timer fires, so a redraw for each frame would hold up the frames themselves."""
SOON_S, ACTIVE_S, IDLE_S, RENDERING_S = 0.01, 0.05, 0.5, 0.5
CHORES_S = 0.5
CHORES: list[Callable[[], None]] = []
"""What other modules want done now and then; each takes a few milliseconds at most."""
STATUS = Status()
_asked: dict[int, str] = {}
"""Request numbers whose answer concerns a job."""
_writing: list[tuple[JobView, FrameMade, insert.Writing]] = []
"""The frame that is being written, if any; meanwhile nothing else is received, so order is kept."""
LARGE_BYTES = 256 << 10
"""A frame of more than this is written in ticks of its own."""
_stale: dict[str, JobView] = {}
"""Jobs that have frames which their strips do not show yet, by id."""
_again: set[str] = set()
"""Why strips must be filled anew at the next tick: undo, redo or load."""


# ---- what operators call


def wake() -> None:
    """Makes sure that the timer runs, and soon; in background it never would."""
    if bpy.app.background or STATUS.ticking:
        return
    # It may be about to come in half a second only: nothing was going on.
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
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


def adopt_strips() -> None:
    """Finds every strip that Keytween made, fills it from disk, and asks for what its jobs lack."""
    for view in STATUS.jobs.values():
        view.places.clear()
    STATUS.shelves.clear()
    for scene, strip in insert.tween_strips():
        shelf = STATUS.shelf(insert.folder_of(strip))
        for view in _adopted(strip, shelf):
            view.places.append((scene.name, strip.name))
            _note(view, strip)
        show(strip)


def _adopted(strip: bpy.types.Strip, shelf: Shelf) -> list[JobView]:
    """The views of the jobs that a strip remembers; those that are new here are watched."""
    found: list[JobView] = []
    for remembered in views_of(strip):
        view = STATUS.jobs.setdefault(remembered.job_id, remembered)
        if view is remembered or not view.files:
            view.look_through(shelf)
        if view is remembered and not view.state.ended and STATUS.link.state is LinkState.READY:
            _watch(view)
        found.append(view)
    return found


def show(strip: bpy.types.Strip) -> int:
    """Gives every frame of a strip the best drawing that there is; returns how many changed."""
    # Undo brings back the timing that the strip had: the strip decides what is shown.
    tween = Tween.from_json(strip[insert.TWEEN])
    shelf = STATUS.shelf(insert.folder_of(strip))
    return insert.fill(strip, tween.shown(shelf, draft=insert.shows_draft(strip)))


def on_the_way(strip_id: str) -> Shelf:
    """The drawings that unfinished jobs are making for a tween."""
    coming = Shelf()
    for view in STATUS.jobs.values():
        if view.strip_id == strip_id and not view.state.ended:
            for segment, row in enumerate(view.positions):
                for position in row:
                    coming.add(drawing_name(view.looks[segment], position, ".png"))
    return coming


def forget_ended() -> None:
    """Takes ended jobs off the list; their strips stay."""
    for job_id in [job_id for job_id, view in STATUS.jobs.items() if view.state.ended]:
        del STATUS.jobs[job_id]


def busy() -> bool:
    """Whether any job is unfinished."""
    return any(not view.state.ended for view in STATUS.jobs.values())


# ---- the tick


def tick() -> float | None:
    """One turn of the timer; returns when to come again, and measures itself."""
    started = time.perf_counter()
    if STATUS.drew:
        # Since the last tick Blender has drawn what that one changed.
        STATUS.drawing_s, STATUS.drew = max(0.0, started - STATUS.left - SOON_S), False
    STATUS.ticking = True
    try:
        return _turn()
    finally:
        STATUS.ticking = False
        STATUS.left = time.perf_counter()
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
        _connect_for_jobs()
        _redraw()
        return SOON_S
    link = STATUS.link
    changed = link.step()
    heard = 0
    try:
        heard = _take_in(link.client)
    except KeytweenError as error:
        link.fail(error)
        changed = True
    if heard:
        STATUS.news = True
    if changed:
        _redraw()
    if not heard:
        _do_chores()
    _refresh()
    if _writing:
        return SOON_S
    moving = link.state in (LinkState.STARTING, LinkState.CONNECTING) or busy()
    return (SOON_S if heard else ACTIVE_S) if moving else IDLE_S


def _do_chores() -> None:
    """What has time until nothing arrives."""
    now = time.monotonic()
    if now - STATUS.tidied >= CHORES_S:
        STATUS.tidied = now
        for chore in CHORES:
            chore()


def _take_in(client: Client | None) -> int:
    """Receives and writes while the budget lasts; returns how many messages were dealt with."""
    deadline = time.perf_counter() + BUDGET_S / 2
    heard = 0
    while True:
        taken = _go_on_writing() if _writing else _listen(client) if client is not None else 0
        heard += taken
        if (not taken and not _writing) or _is_large() or time.perf_counter() >= deadline:
            return heard


def _is_large() -> bool:
    """Whether the frame that is being written wants ticks of its own: receiving it took most of one."""
    return bool(_writing) and _writing[0][1].size > LARGE_BYTES


def _refresh() -> None:
    """Shows what has arrived, at a pace that leaves Blender time for everything else.

    Where drawing the window takes long (software OpenGL, many strips) the pace slows down with it.
    """
    now = time.monotonic()
    pace = min(SLOWEST_REFRESH_S, max(REFRESH_S, 4 * STATUS.drawing_s))
    if not (STATUS.news or _stale) or now - STATUS.refreshed < pace:
        return
    STATUS.refreshed, STATUS.news = now, False
    STATUS.drew = True
    for view in list(_stale.values()):
        _fill(view)
    _redraw()


def _listen(client: Client) -> int:
    """Takes small messages while the budget lasts, and at most one frame; returns how many it took."""
    heard = 0
    for received in client.poll(budget_s=BUDGET_S, most=8):
        heard += 1
        message = received.message
        if isinstance(message, FrameMade) and received.blobs:
            _start_writing(message, received.blobs[0])
            break
        hear(received)
    return heard


def _start_writing(message: FrameMade, data: bytes) -> None:
    """A frame is written from the next tick on: receiving it has used this one up."""
    view = STATUS.jobs.get(message.job_id)
    if view is not None:
        _writing.append((view, message, insert.Writing(view.folder / _name(view, message), data)))


def _go_on_writing() -> int:
    """Writes on for as long as a tick may take; the strip follows when the file is whole."""
    view, message, file = _writing[0]
    try:
        if not view.folder.is_dir():
            insert.make_folder(view.folder)
        if not file.go_on(BUDGET_S / 2):
            return 0
    except KeytweenError as error:
        _writing.clear()
        view.error = error
        return 1
    _writing.clear()
    _frame_is_there(view, message)
    return 1


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
        _take_frame(view, message, blobs)
    elif isinstance(message, Progressed):
        view.phase, view.eta_s = message.phase, message.eta_s
        view.step, view.steps = message.step, message.steps
        if view.state is JobState.QUEUED:
            view.state = JobState.RUNNING
    elif isinstance(message, JobChanged):
        view.number = max(view.number, message.number)
        error = from_wire(message.error.code, message.error.values) if message.error else None
        _set_state(view, message.state, error)


def _take_frame(view: JobView, message: FrameMade, blobs: tuple[bytes, ...]) -> None:
    """Writes a drawing at once, or makes sure that the one on disk is what the daemon means."""
    path = view.folder / _name(view, message)
    if blobs:
        insert.make_folder(view.folder)
        insert.write_file(path, blobs[0])
    elif not path.is_file() or path.stat().st_size != message.size:
        # We said that we have it, but what is on disk is not it; the end of the job asks for it again.
        view.files.pop(message.index, None)
        STATUS.shelf(view.folder).drop(path.name)
        return
    _frame_is_there(view, message)


def _frame_is_there(view: JobView, message: FrameMade) -> None:
    view.files[message.index] = _name(view, message)
    STATUS.shelf(view.folder).add(view.files[message.index])
    view.number = max(view.number, message.number)
    _stale[view.job_id] = view
    _refresh()


def _name(view: JobView, message: FrameMade) -> str:
    # By what was asked for: an engine that cannot overshoot gives the keyframe instead, and says so.
    segment, position = view.asked[message.index]
    return drawing_name(view.looks[segment], position, message.suffix)


def _set_state(view: JobView, state: JobState, error: KeytweenError | None) -> None:
    if state is JobState.DONE and len(view.files) < view.total:
        if _ask_again(view):
            return
        # The daemon is done, but not every frame could be kept here: that is no success.
        state, error = JobState.FAILED, view.error or JobError(detail="some of its frames did not arrive")
    view.state, view.error = state, error
    if state.ended:
        view.phase, view.eta_s = "", -1.0
        view.places.clear()
    _fill(view)


def _ask_again(view: JobView) -> bool:
    """Asks once more for the frames that are not on disk; False when that was done before."""
    if view.asked_again or STATUS.link.state is not LinkState.READY:
        return False
    view.asked_again = True
    view.number = 0
    _watch(view)
    return True


# ---- strips


def _fill(view: JobView) -> None:
    _stale.pop(view.job_id, None)
    for strip in _strips(view):
        show(strip)
        _note(view, strip)


def _note(view: JobView, strip: bpy.types.Strip) -> None:
    """Keeps on the strip where its job stands, so that a reload goes on from there."""
    records = Record.list_from(strip.get(insert.JOBS, ""))
    if view.job_id not in (record.job_id for record in records):
        return
    strip[insert.JOBS] = Record.to_text([view.record if r.job_id == view.job_id else r for r in records])
    # A draft is only there to be looked at meanwhile: the strip's state is that of the real thing.
    told = [record for record in records if not record.draft] or records
    if told[-1].job_id != view.job_id:
        return
    strip[insert.SINCE] = view.number
    strip[insert.STATE] = view.state.value
    if view.error is not None:
        strip[insert.ERROR] = error_to(view.error)
    elif insert.ERROR in strip:
        del strip[insert.ERROR]


def enlist(strip: bpy.types.Strip, view: JobView) -> None:
    """Writes a new job on its strip, in place of those that have ended."""
    records = [r for r in Record.list_from(strip.get(insert.JOBS, "")) if not JobState(r.state).ended]
    strip[insert.JOBS] = Record.to_text([*records, view.record])
    _note(view, strip)


def _strips(view: JobView) -> list[bpy.types.Strip]:
    """The job's strips, where they were last or wherever they are now."""
    found = [_at(view.strip_id, *place) for place in view.places]
    if found and all(strip is not None for strip in found):
        return [strip for strip in found if strip is not None]
    pairs = list(insert.tween_strips(view.strip_id))
    view.places = [(scene.name, strip.name) for scene, strip in pairs]
    return [strip for _, strip in pairs]


def _at(strip_id: str, scene_name: str, strip_name: str) -> bpy.types.Strip | None:
    scene = bpy.data.scenes.get(scene_name)
    editor = scene.sequence_editor if scene else None
    strip = editor.strips_all.get(strip_name) if editor else None
    return strip if strip is not None and strip.get(insert.JOB) == strip_id else None


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
    _forget()
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


def _connect_for_jobs() -> None:
    """Connects for the jobs of a file that was loaded; that there is no daemon is no news."""
    if STATUS.link.state is LinkState.OFF and busy():
        try:
            STATUS.link.connect()
        except DaemonNotRunning:
            pass
        except KeytweenError as error:
            STATUS.link.fail(error)


def register() -> None:
    """Hooks in; the first tick looks for jobs and for a daemon."""
    global STATUS
    STATUS = Status()
    for handlers, function in _handlers():
        handlers.append(function)
    _again.add("load")
    wake()


def unregister() -> None:
    """Unhooks, and closes the socket at once so that Blender can quit."""
    for handlers, function in _handlers():
        if function in handlers:
            handlers.remove(function)
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    STATUS.link.close()
    _forget()
    _again.clear()


def _forget() -> None:
    """Lets go of all jobs, and of a frame that is half written."""
    for _, _, file in _writing:
        file.give_up()
    _writing.clear()
    _stale.clear()
    STATUS.jobs.clear()
    STATUS.shelves.clear()
    _asked.clear()
