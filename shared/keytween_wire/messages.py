"""What travels on the wire: frozen dataclasses. `docs/protocol.md` is their document.

Defaults are left out on the wire, so that old and new versions talk. Pictures are never in here: they
travel as blobs behind the message, in the order that the message names them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from keytween_wire.errors import BadSetting, TooFewKeyframes

MEBIBYTE = 1 << 20
POSITION_RANGE = (-1.0, 2.0)
"""Overshooting easings leave 0..1; beyond this range a position is a mistake."""


class JobState(Enum):
    """Where a job stands; `daemon/keytween/jobs/job.py` has the table of allowed moves."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the job will never move again."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Colour(Enum):
    """How a picture's numbers are to be read. AUTO follows the file, then its format, and says which."""

    AUTO = "auto"
    SRGB = "srgb"
    SCENE_LINEAR = "scene-linear"


@dataclass(frozen=True, slots=True)
class KeyframeImage:
    """One keyframe's picture: blob i of the submission is the file's bytes of `keyframes[i]`.

    `digest` is the SHA-256 of those bytes in hex, `suffix` the file's suffix with its dot, `name` what
    the artist calls it (for error sentences; it changes no pixel), `frame` its timeline frame.
    """

    digest: str
    suffix: str
    frame: int = 0
    colour: Colour = Colour.AUTO
    name: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Diffusion:
    """The settings of the `diffmorpher` engine; the defaults are the paper's (section 4.1).

    `checkpoint` is a folder on the daemon's machine or a name it knows. `prompts` and `loras` (files
    there) are none, one for all, or one for each keyframe. `guidance` 1 is none. `refinements` are fixed-
    point iterations of each inversion step. `lora_steps`, `lora_lr` and `lora_rank` fit the LoRAs;
    `fixed_lora` 0..1 keeps their mix there, -1 lets it follow. `attention` is the paper's lambda, 0
    switches it off. `reschedule` is `probe` (from a few cheap frames), `full` (from a first rendering of
    all, as published) or `off`; above 1, `pace_rounds` is how often at most drawings are made at full steps
    until their steps are even. `size` is the side in pixels of a square of the working area, 0 the
    checkpoint's own. `keep_ends` fades what the network loses of the keyframes into their neighbours.
    """

    checkpoint: str = ""
    prompts: tuple[str, ...] = ()
    negative_prompt: str = ""
    guidance: float = 1.0
    steps: int = 50
    refinements: int = 0
    use_lora: bool = True
    lora_steps: int = 200
    lora_lr: float = 2e-4
    lora_rank: int = 16
    loras: tuple[str, ...] = ()
    fixed_lora: float = -1.0
    attention: float = 0.6
    adain: bool = True
    reschedule: str = "probe"
    pace_rounds: int = 1
    size: int = 0
    keep_ends: bool = True

    RESCHEDULES: ClassVar[tuple[str, ...]] = ("probe", "full", "off")
    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "final": {"refinements": 1, "pace_rounds": 9},
        "draft": {"steps": 20, "refinements": 1, "lora_steps": 100},
        "paper": {"reschedule": "full", "keep_ends": False},
    }

    def serves(self, engine: str) -> bool:
        """Whether an engine may need these settings: `auto` does where a checkpoint is named."""
        return engine == "diffmorpher" or (engine == "auto" and bool(self.checkpoint))


@dataclass(frozen=True, slots=True)
class MorphRequest:
    """Everything that changes pixels, and nothing else.

    `positions` holds one tuple per segment (one fewer than keyframes); drawing `index` of an event counts
    through all segments in order. `file_format` is `auto` (the keyframes' own depth: png or exr), `png8`,
    `png16`, `exr-half` or `exr-float`. `path` is `straight` (each segment for itself) or `arc` (motion runs
    through the keyframes without corners; it takes as long as their `frame` numbers say). `effort` is `full`
    or `draft`, a first look in a fraction of the time, from engines that have one.
    """

    keyframes: tuple[KeyframeImage, ...]
    positions: tuple[tuple[float, ...], ...]
    engine: str = "auto"
    seed: int = 0
    file_format: str = "auto"
    diffusion: Diffusion = Diffusion()
    path: str = "straight"
    effort: str = "full"

    FILE_FORMATS: ClassVar[tuple[str, ...]] = ("auto", "png8", "png16", "exr-half", "exr-float")
    PATHS: ClassVar[tuple[str, ...]] = ("straight", "arc")
    EFFORTS: ClassVar[tuple[str, ...]] = ("full", "draft")

    def check(self) -> None:
        """Refuses what no engine could do: TooFewKeyframes, BadSetting."""
        if len(self.keyframes) < 2:
            raise TooFewKeyframes(count=len(self.keyframes))
        if len(self.positions) != len(self.keyframes) - 1:
            raise BadSetting(
                name="positions",
                value=f"{len(self.positions)} segments",
                detail=f"{len(self.keyframes)} keyframes have {len(self.keyframes) - 1}",
            )
        for position in (p for segment in self.positions for p in segment):
            if not (math.isfinite(position) and POSITION_RANGE[0] <= position <= POSITION_RANGE[1]):
                raise BadSetting(name="position", value=position, detail="it must lie in -1..2")
        for name, value, choices in (
            ("file format", self.file_format, self.FILE_FORMATS),
            ("path", self.path, self.PATHS),
            ("effort", self.effort, self.EFFORTS),
        ):
            if value not in choices:
                raise BadSetting(name=name, value=value, detail=f"choose one of {', '.join(choices)}")

    @property
    def may_diffuse(self) -> bool:
        """Whether `diffmorpher` draws it, or some of it."""
        return self.diffusion.serves(self.engine)

    @property
    def total(self) -> int:
        """How many drawings the request asks for."""
        return sum(len(segment) for segment in self.positions)

    @staticmethod
    def digest_of(data: bytes) -> str:
        """The SHA-256 in hex that names a keyframe's bytes."""
        return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error on the wire: its code and the values of its sentence (`errors.from_wire`)."""

    code: str
    values: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is called, what it does, whether it can run here and, if not, why.

    `overshoot` says whether it draws beyond the keyframes, `device` whether it wants a GPU for itself.
    """

    name: str
    summary: str
    available: bool = True
    reason: str = ""
    overshoot: bool = False
    device: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint that the daemon knows by name: whether its folder is there, or can be pulled."""

    name: str
    summary: str = ""
    available: bool = True
    pullable: bool = False


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """Settings of `diffmorpher` under a name; its `diffusion` has no checkpoint and no prompts."""

    name: str
    summary: str = ""
    diffusion: Diffusion = Diffusion()


@dataclass(frozen=True, slots=True)
class Limits:
    """What the daemon accepts; a client checks before it sends."""

    blob_bytes: int = 256 * MEBIBYTE
    body_bytes: int = MEBIBYTE
    keyframes: int = 64
    drawings: int = 4096
    queued_jobs: int = 10_000


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as the daemon's store has it. Times are seconds since 1970, `eta_s` seconds, -1 unknown.

    `attempts` counts workers that died on it since its last new frame, `lean` how often memory ran out.
    """

    job_id: str
    state: JobState
    engine: str
    label: str = ""
    created: float = 0.0
    frames_done: int = 0
    frames_total: int = 0
    phase: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float = -1.0
    last_event: int = 0
    attempts: int = 0
    lean: int = 0
    error: ErrorInfo | None = None


# ---- client -> daemon ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: which protocol versions the client speaks, never left out."""

    oldest: int
    newest: int
    client: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Submit:
    """Asks for a job; blobs are the keyframes' files. Sending it twice is the same as once."""

    job_id: str
    request: MorphRequest
    label: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Asks for a job's events after number `since`, and for new ones, at most `credit` before the next Watch.

    Frames whose index is in `have` are announced without their picture.
    """

    job_id: str
    since: int = 0
    credit: int = 64
    have: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Stops a job's events."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancels a job; a job that has ended stays as it is."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Lets a job that failed or was cancelled wait again, with the frames that it has."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ListJobs:
    """Asks for the jobs the daemon knows, newest first; `job_id` for one alone."""

    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Clear:
    """Forgets ended jobs and their files: one (`job_id`) or all."""

    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks whether the daemon's loop is alive."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Asks for a worker that has its libraries loaded: whoever connects may soon want a first look."""


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """Asks idle workers to exit, with the engines and checkpoints that they keep open."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks the daemon to exit: now (running jobs resume at the next start), or when the queue is empty."""

    when_idle: bool = False


# ---- daemon -> client ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to Hello: the protocol both will speak, and what this daemon can do.

    `log` is its log file, on its own machine.
    """

    protocol: int
    version: str
    pid: int = 0
    boot_id: str = ""
    default_engine: str = "flow"
    engines: tuple[EngineInfo, ...] = ()
    limits: Limits = Limits()
    checkpoints: tuple[CheckpointInfo, ...] = ()
    presets: tuple[PresetInfo, ...] = ()
    log: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job is in the store and survives a crash; `existing` when it was there before."""

    job: JobInfo
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Jobs:
    """The answer to ListJobs."""

    jobs: tuple[JobInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to Watch, Unwatch, Cancel, Retry, Clear, Ping, Prepare, FreeMemory and Stop.

    `count` is how many jobs it touched; for Prepare and FreeMemory, how many workers were started or exited.
    """

    count: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer to a message that could not be carried out."""

    error: ErrorInfo


# ---- events: numbered per job, sent unasked after Watch ---------------------------------------------


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job moved to another state."""

    job_id: str
    number: int
    state: JobState
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far the job is. Only the newest is kept, so numbers may have gaps. `eta_s`: seconds, -1 unknown."""

    job_id: str
    number: int
    phase: str
    step: int
    steps: int
    eta_s: float = -1.0
    frames_done: int = 0
    frames_total: int = 0


@dataclass(frozen=True, slots=True)
class FrameMade:
    """Drawing `index` is finished; the blob, unless the client had it, is the picture file's bytes.

    `note` is a sentence of the engine for the report, mostly none.
    """

    job_id: str
    number: int
    index: int
    segment: int
    position: float
    digest: str
    suffix: str
    size: int
    note: str = ""


Request = (
    Hello | Submit | Watch | Unwatch | Cancel | Retry | ListJobs | Clear | Ping | Prepare | FreeMemory | Stop
)
Reply = Welcome | Accepted | Jobs | Done | Failed
Event = JobChanged | Progressed | FrameMade
Message = Request | Reply | Event

MESSAGES: dict[str, type[Message]] = {
    "hello": Hello,
    "submit": Submit,
    "watch": Watch,
    "unwatch": Unwatch,
    "cancel": Cancel,
    "retry": Retry,
    "list-jobs": ListJobs,
    "clear": Clear,
    "ping": Ping,
    "prepare": Prepare,
    "free-memory": FreeMemory,
    "stop": Stop,
    "welcome": Welcome,
    "accepted": Accepted,
    "jobs": Jobs,
    "done": Done,
    "failed": Failed,
    "job-changed": JobChanged,
    "progressed": Progressed,
    "frame-made": FrameMade,
}
"""Every message by its name on the wire."""
