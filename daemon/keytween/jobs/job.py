"""A job's states and the table of allowed moves. Pure."""

from __future__ import annotations

import re

from keytween_wire.errors import BadSetting, KeytweenError
from keytween_wire.messages import JobState

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    # Back to queued when the daemon or the worker died.
    JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}),
    # Back to queued when a drawing turns out to be gone or damaged, or when somebody wants another try.
    JobState.DONE: frozenset({JobState.QUEUED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}

_JOB_ID = re.compile(r"[0-9a-f]{32}")


class MoveRefused(KeytweenError):
    """A job was asked to move where its state does not allow: a mistake of ours, not the user's."""

    code = "KT-508"
    sentence = "A job cannot go from {before} to {after}."
    next_step = "Please report it with the output of `keytween doctor`."


def check_move(before: JobState, after: JobState) -> None:
    """Raises MoveRefused unless the table allows it."""
    if after not in MOVES[before]:
        raise MoveRefused(before=before.value, after=after.value)


def check_job_id(job_id: str) -> None:
    """Raises BadSetting unless it is a UUID's 32 hex digits; it names a folder, so nothing else will do."""
    if not _JOB_ID.fullmatch(job_id):
        raise BadSetting(name="job id", value=job_id, detail="it must be 32 hexadecimal digits")
