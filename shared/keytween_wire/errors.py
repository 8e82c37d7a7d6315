"""Every failure a user can meet: a code, one sentence in the artist's words, and what to do next.

The same class is raised at both ends of the wire: the far end sends `code` and the values of the
sentence, and `from_wire()` builds the class again. `docs/troubleshooting.md` has one entry per code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

LONGEST_VALUE = 4096
"""As long as a path may be. What a file says of itself may be longer, and would fill a whole message."""

_ORDERS = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {0x09, 0x0A}
_WRITTEN_OUT = {order: f"\\u{order:04x}" for order in _ORDERS}
"""What a terminal obeys rather than shows: a picture's profile or a file's name could repaint the screen."""


class KeytweenError(Exception):
    """The root of the tree; catch it to catch everything Keytween raises on purpose.

    `sentence` and `next_step` are templates filled from the keyword arguments.
    """

    code: ClassVar[str] = "KT-000"
    sentence: ClassVar[str] = "Something went wrong inside Keytween: {detail}."
    next_step: ClassVar[str] = "Please report it with the output of `keytween doctor`."

    def __init__(self, /, **values: object) -> None:
        self.values: dict[str, str] = {key: _shown(value) for key, value in values.items()}
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The sentence with its values filled in."""
        return self.sentence.format_map(_Lenient(self.values))

    @property
    def advice(self) -> str:
        """What to do next, with its values filled in."""
        return self.next_step.format_map(_Lenient(self.values))

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"

    def __reduce__(self) -> tuple[object, ...]:
        return (from_wire, (self.code, self.values))


def _shown(value: object) -> str:
    try:
        text = str(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    text = text[: LONGEST_VALUE + 1].translate(_WRITTEN_OUT)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


class _Lenient(dict[str, str]):
    """Fills a template although an older peer did not send every value."""

    def __missing__(self, key: str) -> str:
        return "?"


# ---- pictures --------------------------------------------------------------------------------------


class PictureError(KeytweenError):
    """A picture cannot be used; every picture error is one of these."""

    code = "KT-100"
    sentence = "The picture {name} cannot be used: {detail}."
    next_step = "Open it in an image editor and save it again as PNG."


class PictureMissing(PictureError):
    """No file is where the picture should be."""

    code = "KT-101"
    sentence = "There is no picture at {name}."
    next_step = "Check the path, or make the file again."


class NotAPicture(PictureError):
    """The file's bytes are no picture format that Keytween reads."""

    code = "KT-102"
    sentence = "{name} is not a picture that Keytween can read."
    next_step = "Save it as PNG, JPEG, TIFF, WebP or OpenEXR."


class PictureDamaged(PictureError):
    """The header is there but the pixels are not all there."""

    code = "KT-103"
    sentence = "The picture {name} is damaged or cut short: {detail}."
    next_step = "Copy or export it again; the file on disk is incomplete."


class PictureEmpty(PictureError):
    """The file has no bytes."""

    code = "KT-104"
    sentence = "The picture {name} is an empty file."
    next_step = "Export it again; nothing was written to it."


class PictureMislabelled(PictureError):
    """The suffix says one format, the bytes another."""

    code = "KT-105"
    sentence = "{name} is named like {suffix} but holds {found}."
    next_step = "Rename it with the right suffix, or export it again."


class PictureAnimated(PictureError):
    """The file holds several frames."""

    code = "KT-106"
    sentence = "{name} holds {count} frames; a keyframe is one picture."
    next_step = "Export the frame you want as a still picture."


class PictureTooLarge(PictureError):
    """The header promises more pixels than the budget allows."""

    code = "KT-107"
    sentence = "{name} is {width} x {height} pixels, more than the limit of {limit_megapixels} megapixels."
    next_step = "Scale it down, or raise `max_megapixels` in Keytween's settings."


class PictureSizesDiffer(PictureError):
    """The keyframes of one request do not have the same size."""

    code = "KT-108"
    sentence = "The keyframes have different sizes: {first} is {first_size}, {name} is {size}."
    next_step = "Export all keyframes at one size."


class PictureColourUnknown(PictureError):
    """The file's colour space is one that Keytween does not handle."""

    code = "KT-109"
    sentence = "{name} is in the colour space {colour}, which Keytween does not know."
    next_step = "Export it as sRGB or scene-linear Rec.709, or say which it is with `--colour`."


class PictureUnwritable(PictureError):
    """A picture cannot be written where it was asked for."""

    code = "KT-110"
    sentence = "The picture {name} cannot be written: {detail}."
    next_step = "Check that the folder exists, can be written to and has room."


class SequenceEmpty(PictureError):
    """A number pattern matches no file."""

    code = "KT-111"
    sentence = "No picture matches {name}."
    next_step = "Check the folder and the number pattern, for example `walk.####.png`."


# ---- requests --------------------------------------------------------------------------------------


class RequestError(KeytweenError):
    """A request cannot be carried out as it was asked."""

    code = "KT-200"
    sentence = "This tween cannot be made: {detail}."
    next_step = "Change the setting that is named and try again."


class TooFewKeyframes(RequestError):
    """Fewer than two keyframes were given."""

    code = "KT-201"
    sentence = "A tween needs at least two keyframes, and there is {count}."
    next_step = "Select or name two keyframes or more."


class NoRoomBetween(RequestError):
    """Two keyframes leave no timeline frame between them."""

    code = "KT-202"
    sentence = "There is no frame between keyframe {first} and keyframe {second}."
    next_step = "Move the keyframes apart, or shorten the first one."


class UnknownEngine(RequestError):
    """No engine has that name."""

    code = "KT-203"
    sentence = "There is no engine called {name}."
    next_step = "Choose one of: {choices}."


class UnknownEasing(RequestError):
    """No easing has that name."""

    code = "KT-204"
    sentence = "There is no easing called {name}."
    next_step = "Choose one of: {choices}."


class BadSetting(RequestError):
    """A setting is out of its range."""

    code = "KT-205"
    sentence = "The setting {name} cannot be {value}: {detail}."
    next_step = "Give it a value in its range and try again."


class EngineUnavailable(RequestError):
    """The engine exists but cannot run here."""

    code = "KT-206"
    sentence = "The engine {name} cannot run here: {detail}."
    next_step = "{fix}"


class NothingSelected(RequestError):
    """In Blender: the selection holds no usable keyframes."""

    code = "KT-207"
    sentence = "{count} keyframe is selected; a tween needs at least two."
    next_step = "Select two or more image strips, or single frames of other strips, in any order."


class StripUnusable(RequestError):
    """In Blender: a selected strip cannot be captured as a keyframe."""

    code = "KT-208"
    sentence = "The strip {name} cannot be a keyframe: {detail}."
    next_step = "Deselect it, shorten it to one frame, or replace it with an image strip."


class SceneHasNoKeys(RequestError):
    """In Blender: a scene has fewer than two keys in its frame range."""

    code = "KT-225"
    sentence = "The scene {name} has {count} key from frame {start} to {end}; a tween needs at least two."
    next_step = "Set keys on its objects, or mark Grease Pencil drawings as extremes or breakdowns."


class OutputUnwritable(RequestError):
    """The folder for the frames cannot be made or written to."""

    code = "KT-209"
    sentence = "The frames cannot be written to {name}: {detail}."
    next_step = "Choose another folder, or free some space."


class CheckpointUnusable(RequestError):
    """The checkpoint is not there or is not one that Keytween can use."""

    code = "KT-210"
    sentence = "The checkpoint {name} cannot be used: {detail}."
    next_step = (
        "Give a folder with Stable Diffusion in diffusers layout, weights as safetensors "
        "(docs/diffmorpher.md says how to convert others), or a name from `keytween models list`."
    )


class LoraUnusable(RequestError):
    """A LoRA file is not there, is no LoRA, or does not fit the checkpoint."""

    code = "KT-211"
    sentence = "The LoRA {name} cannot be used: {detail}."
    next_step = (
        "Give a safetensors file that was made for this checkpoint; "
        "docs/diffmorpher.md says how to convert a .bin, .ckpt or .pt that you trust."
    )


class NoTweenActive(RequestError):
    """In Blender: what was asked for needs a tween's strip, and none is active."""

    code = "KT-220"
    sentence = "No tween is active."
    next_step = "Click a strip that Keytween made, so that it is the active one."


class NoDrawingThere(RequestError):
    """In Blender: the current frame shows no drawing that could become something else."""

    code = "KT-221"
    sentence = "Frame {frame} cannot be used: {detail}."
    next_step = "Move the playhead to a finished in-between of the active tween."


class ModelNotFetched(RequestError):
    """A checkpoint could not be fetched from any of its repositories."""

    code = "KT-212"
    sentence = "The checkpoint {name} could not be fetched: {detail}."
    next_step = (
        "Try again when there is a connection, or copy a checkpoint here and name it with "
        "`keytween models add PATH`."
    )


# ---- the daemon ------------------------------------------------------------------------------------


class DaemonError(KeytweenError):
    """The daemon cannot be reached or will not talk to us."""

    code = "KT-300"
    sentence = "The daemon cannot be used: {detail}."
    next_step = "Run `keytween doctor`."


class DaemonNotRunning(DaemonError):
    """No daemon answers."""

    code = "KT-301"
    sentence = "No Keytween daemon is running."
    next_step = "Start one with `keytween serve`, or press Start in Blender's Keytween panel."


class DaemonUnreachable(DaemonError):
    """A connection file is there but nobody answers at its address."""

    code = "KT-302"
    sentence = "The daemon at {endpoint} does not answer."
    next_step = (
        "It may have been killed: start it again with `keytween serve`. "
        "On another machine, check its address and the firewall as well."
    )


class DaemonNotOurs(DaemonUnreachable):
    """Something answers at the daemon's address, without the key that the daemon has."""

    code = "KT-318"
    sentence = "What answers at {endpoint} does not have the key of our daemon."
    next_step = (
        "Reconnect so that the current connection file is read. For a daemon on another machine compare "
        "the key with `keytween keys show --daemon` there, and join again."
    )


class KeyRefused(DaemonError):
    """The daemon does not know our key."""

    code = "KT-303"
    sentence = "The daemon at {endpoint} refuses our key."
    next_step = (
        "Reconnect so that the current connection file is read, or have the key authorised "
        "with `keytween keys allow`."
    )


class ProtocolMismatch(DaemonError):
    """The two ends speak different versions of the protocol."""

    code = "KT-304"
    sentence = "This client speaks protocol {ours}, the daemon speaks {theirs}."
    next_step = "Update the older of the two: client {client_version}, daemon {daemon_version}."


class DaemonAlreadyRunning(DaemonError):
    """Another daemon owns the state folder."""

    code = "KT-305"
    sentence = "A daemon is already running here (process {pid}, {endpoint})."
    next_step = "Use that one, or stop it with `keytween stop`."


class DaemonWouldNotStart(DaemonError):
    """The daemon was started but did not become ready."""

    code = "KT-306"
    sentence = "The daemon did not start: {detail}."
    next_step = "Read the log at {log}, or run `keytween doctor`."


class DaemonTimeout(DaemonError):
    """The daemon took too long to answer."""

    code = "KT-307"
    sentence = "The daemon did not answer within {seconds} seconds."
    next_step = "It may be busy or stopped: look with `keytween jobs list`, then try again."


class ConnectionFileUnsafe(DaemonError):
    """Somebody else could read or write the connection file."""

    code = "KT-308"
    sentence = "The connection file {name} can be read or written by other users."
    next_step = "Remove it and start the daemon again."


class StoreUnusable(DaemonError):
    """The daemon's list of jobs is damaged, in use, or too new."""

    code = "KT-312"
    sentence = "The daemon's list of jobs {name} cannot be used: {detail}."
    next_step = (
        "`keytween doctor --repair` puts a damaged one aside and saves every job; "
        "one of a newer Keytween needs that Keytween."
    )


class StateUnwritable(DaemonError):
    """The daemon's own folder cannot be made or written to."""

    code = "KT-316"
    sentence = "The daemon's folder {name} cannot be written to: {detail}."
    next_step = "Make it writable, or set `state` to a folder that is. Nothing in it was changed."


class NotListening(DaemonError):
    """The daemon cannot or will not listen at an address."""

    code = "KT-313"
    sentence = "The daemon does not listen at {address}: {detail}."
    next_step = "Leave `bind` out for this machine alone, or see docs/remote.md for another one."


class FileUnsafe(DaemonError):
    """Somebody else could read or change a file that must be this user's alone."""

    code = "KT-317"
    sentence = "Other users can read or change {name}."
    next_step = (
        "Make it yours alone with `chmod go-rwx`. A key that others could read is worth nothing: delete it, "
        "and a new one is made."
    )


class SetUpFailed(DaemonError):
    """In Blender: the daemon's own environment could not be made."""

    code = "KT-309"
    sentence = "The daemon could not be set up: {detail}."
    next_step = "Press Set Up again: it goes on where it stopped. The log at {log} says more."


class OnlineAccessOff(DaemonError):
    """In Blender: something beyond this computer is needed, and online access is off."""

    code = "KT-310"
    sentence = "{what} needs the network, and online access is off in Blender."
    next_step = "Allow online access in Blender's System preferences, then try again."


class NetworkRefused(DaemonError):
    """In Blender: the network did not let a download through."""

    code = "KT-311"
    sentence = "The network refused a download: {detail}."
    next_step = "Check the connection, a proxy or a firewall, and try again: it goes on where it stopped."


# ---- messages --------------------------------------------------------------------------------------


class MessageError(KeytweenError):
    """A message on the wire is not what the protocol says."""

    code = "KT-400"
    sentence = "A message could not be understood: {detail}."
    next_step = "Update Keytween at both ends; if it stays, report it."


class MessageTooLarge(MessageError):
    """A message or one of its blobs is over the limit."""

    code = "KT-401"
    sentence = "{name} is {size} bytes, more than the {limit} bytes that one message may carry."
    next_step = "Send smaller pictures, or fewer keyframes at once."


class UnknownMessage(MessageError):
    """The far end does not know this kind of message."""

    code = "KT-402"
    sentence = "The far end does not know the message {name}."
    next_step = "Update the older end."


# ---- jobs ------------------------------------------------------------------------------------------


class JobError(KeytweenError):
    """A job could not be finished."""

    code = "KT-500"
    sentence = "The job could not be finished: {detail}."
    next_step = "Try again; the daemon's log says more."


class UnknownJob(JobError):
    """The daemon has no such job; it is never reported as done."""

    code = "KT-501"
    sentence = "The daemon knows no job {job_id}."
    next_step = "It may have been cleared: send it again."


class JobIdTaken(JobError):
    """The same job id was sent with another request."""

    code = "KT-502"
    sentence = "The job id {job_id} already belongs to another request."
    next_step = "Send the request again under a new id."


class WorkerLost(JobError):
    """The worker died on this job too often."""

    code = "KT-503"
    sentence = "The worker died {attempts} times on this job: {detail}."
    next_step = "Try smaller pictures or another engine; the daemon's log says more."


class QueueFull(JobError):
    """The queue is at its limit; `retry_s` is in how many seconds there may be room."""

    code = "KT-504"
    sentence = "The queue is full: {limit} jobs are waiting."
    next_step = "Try again in about {retry_s} seconds, or cancel some with `keytween jobs cancel`."


class DiskFull(JobError):
    """There is no room for frames."""

    code = "KT-505"
    sentence = "The disk is full: the frames cannot be written to {name}."
    next_step = (
        "Free {needed}, then press Retime in Blender or use `keytween jobs retry`: what is finished is kept."
    )

    def __init__(self, /, **values: object) -> None:
        super().__init__(**{"needed": "some space", **values})


class Cancelled(JobError):
    """The job was cancelled; not a fault, but it has no result."""

    code = "KT-506"
    sentence = "The job was cancelled."
    next_step = "The frames that were finished are kept; send it again to make the rest."


class EngineFailed(JobError):
    """The engine raised something nobody foresaw."""

    code = "KT-507"
    sentence = "The engine {name} failed: {detail}."
    next_step = "Please report it with the output of `keytween doctor`."


class ModelGaveNothing(JobError):
    """The checkpoint's network gave no numbers, in full precision either."""

    code = "KT-509"
    sentence = "The checkpoint {name} gave no picture: its network's numbers ran away."
    next_step = "Check the checkpoint's files, or try another one."


class OutOfMemory(JobError):
    """A tween does not fit into memory, with the smallest settings either."""

    code = "KT-510"
    sentence = "There is not enough memory for this tween: {detail}."
    next_step = "Take smaller pictures or a smaller working size, close other programs, or choose flow."


class KeyframeLost(JobError):
    """The daemon's own copy of a keyframe is gone or damaged."""

    code = "KT-511"
    sentence = "The daemon's copy of the keyframe {name} is gone or damaged."
    next_step = "Make the tween again; the disk may be failing."


# ---- shots -----------------------------------------------------------------------------------------


class ShotError(KeytweenError):
    """A shot or a batch of them cannot be made; every such error is one of these."""

    code = "KT-600"
    sentence = "The batch cannot be made: {detail}."
    next_step = "Change what is named and run the same command again."


class ShotsUnreadable(ShotError):
    """The shots file as a whole makes no sense."""

    code = "KT-601"
    sentence = "The shots file {name} cannot be used: {detail}."
    next_step = "Correct the file; `docs/batch.md` describes it."


class ShotUnusable(ShotError):
    """What the file says of one shot makes no sense."""

    code = "KT-602"
    sentence = "The shot {shot} cannot be used: {detail}."
    next_step = "Correct the shot in its file and run the same command again."


class UnknownShot(ShotError):
    """The shots file has no such shot."""

    code = "KT-603"
    sentence = "There is no shot {shot} in {name}."
    next_step = "It has {choices}. `keytween batch --dry-run` lists them all."


class ShotBusy(ShotError):
    """Another process holds the shot's lock."""

    code = "KT-604"
    sentence = "The shot {shot} is being made already: {detail}."
    next_step = "Wait for it, or end that process, and try again."


class ShotsFailed(ShotError):
    """A batch has come to its end, and not every shot is done."""

    code = "KT-605"
    sentence = "{failed} of {total} shots failed: {names}."
    next_step = "Read their reasons in the report, then run the same command again with `--retry-failed`."


class ShotTooSlow(ShotError):
    """A shot was not finished within its deadline."""

    code = "KT-606"
    sentence = "The shot {shot} was given up after its deadline of {seconds} seconds."
    next_step = "Give it a longer deadline, or fewer drawings; what was drawn is kept."


class ShotTooLarge(ShotError):
    """A shot took more memory than it may."""

    code = "KT-607"
    sentence = "The shot {shot} was ended when it took {taken} MB of memory, and it may take {limit} MB."
    next_step = "Use smaller keyframes, or raise `--memory`."


class ShotCrashed(ShotError):
    """The process that made a shot died under it, as often as it may."""

    code = "KT-608"
    sentence = "The process that made the shot {shot} died {attempts} times: {detail}."
    next_step = "Try another engine or smaller keyframes; the log in the results folder says more."


class ClusterUnusable(ShotError):
    """The Ray cluster does not answer, or is open to anybody."""

    code = "KT-609"
    sentence = "The Ray cluster at {name} cannot be used: {detail}."
    next_step = "Look at `ray status` there; `docs/batch.md` says how to start one."


class ExtraMissing(ShotError):
    """A library is not there that comes with one of Keytween's extras."""

    code = "KT-610"
    sentence = "{name} is needed for this and is not installed: {detail}."
    next_step = "Install Keytween with its extra `{extra}`."


class TimelineUnusable(ShotError):
    """A timeline cannot be opened in Blender."""

    code = "KT-611"
    sentence = "The timeline {name} cannot be opened: {detail}."
    next_step = "Choose the `.otio` in the batch's output, or export the timeline again."


class TimelinePicturesMissing(ShotError):
    """Files that a timeline points at are not there."""

    code = "KT-612"
    sentence = "The timeline {name} lacks {count} of its pictures: {names}."
    next_step = (
        "Put them back where the timeline looks for them, or run the batch again; nothing was imported."
    )


def error_classes() -> Iterator[type[KeytweenError]]:
    """Every class of the tree, the root first."""
    pending: list[type[KeytweenError]] = [KeytweenError]
    while pending:
        cls = pending.pop(0)
        yield cls
        pending.extend(cls.__subclasses__())


def from_wire(code: str, values: Mapping[str, str]) -> KeytweenError:
    """The error that the far end raised; a code from a newer peer becomes the root with its text."""
    for cls in error_classes():
        if cls.code == code:
            return cls(**values)
    return KeytweenError(detail=values.get("detail") or f"unknown error {code}")
