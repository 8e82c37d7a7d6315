"""The timeline that shots came from, with the finished ones in the place of their gaps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from keytween.placing import place
from keytween.shots.records import DONE, FAILED, Record, Shelf
from keytween.shots.shot import Batch
from keytween.shots.timeline import DIGITS, KEY, Gap, chains, load, path_of, rate_of, sense
from keytween_wire.errors import KeytweenError, OutputUnwritable

KINDS = (".otio", ".otioz")
"""The shots files that are timelines."""


def write(batch: Batch) -> Path | None:
    """Leaves the filled timeline in the batch's output; None where the shots came from no timeline.

    Gaps of shots that are not done stay; a failed one gets a red marker that says why. Raises
    OutputUnwritable.
    """
    if batch.source.suffix.lower() not in KINDS:
        return None
    otio, whole, root = load(batch.source, batch.output)
    with sense(batch.source):
        rate = rate_of(whole)
        found = list(chains(whole, root))
    tracks = list(whole.video_tracks())
    faults = {fault.shot: fault.error for fault in batch.faults}
    for chain in found:
        # What is no id was a fault of its shot, and is no folder's name either.
        record = {} if chain.shot in faults else Shelf(batch.results, chain.shot).load() or {}
        for gap in chain.gaps:
            track = tracks[chain.track - 1]
            if record.get("state") == DONE and chain.shot not in faults:
                track[gap.child] = _filled(otio, chain.shot, gap, record, rate)
            else:
                _mark(otio, track[gap.child], record, faults.get(chain.shot))
    _lead_on(otio, whole, root, batch.output)
    path = batch.output / f"{batch.source.stem}.otio"
    try:
        place(otio.core.serialize_json_to_string(whole, indent=2).encode(), path)
    except OSError as error:
        raise OutputUnwritable(name=path, detail=error.strerror or error) from error
    return path


def _filled(otio: Any, shot: str, gap: Gap, record: Record, rate: float) -> Any:
    """A clip that shows the shot's frames of the gap's time; the sequence itself holds the keyframes too."""
    time = otio.opentime.RationalTime
    numbers = [frame["frame"] for frame in record["frames"]]
    first = Path(record["frames"][0]["file"])
    media = otio.schema.ImageSequenceReference(
        target_url_base=quote(first.parent.as_posix()) + "/",
        name_prefix=quote(f"{shot}."),
        name_suffix=first.suffix,
        start_frame=numbers[0],
        frame_step=1,
        rate=rate,
        frame_zero_padding=DIGITS,
        available_range=otio.opentime.TimeRange(time(numbers[0], rate), time(len(numbers), rate)),
    )
    return otio.schema.Clip(
        name=shot,
        media_reference=media,
        source_range=otio.opentime.TimeRange(time(gap.start, rate), time(gap.duration, rate)),
        metadata={KEY: {"shot": shot, "request": record["request"], "engine": record["engine"]}},
    )


def _mark(otio: Any, gap: Any, record: Record, fault: KeytweenError | None) -> None:
    said: Mapping[str, Any] = record.get("error", {}) if record.get("state") == FAILED else {}
    reason = fault.message if fault else said.get("message")
    if reason:
        marked = otio.opentime.TimeRange(gap.trimmed_range().start_time, gap.duration())
        name = "Keytween could not fill this gap"
        marker = otio.schema.Marker(name=name, marked_range=marked, color=otio.schema.MarkerColor.RED)
        marker.comment = str(reason)
        gap.markers.append(marker)


def _lead_on(otio: Any, whole: Any, root: Path, output: Path) -> None:
    """Relative media of the timeline lead on from the folder that it lies in now."""
    for clip in whole.find_clips():
        if KEY in clip.metadata and "request" in clip.metadata[KEY]:
            continue
        for media in clip.media_references().values():
            if isinstance(media, otio.schema.ExternalReference):
                media.target_url = _from(media.target_url, root, output)
            elif isinstance(media, otio.schema.ImageSequenceReference):
                base = _from(media.target_url_base, root, output)
                media.target_url_base = base if not base or base.endswith("/") else f"{base}/"


def _from(url: str, root: Path, output: Path) -> str:
    path = path_of(url, root)
    if path is None or Path(url).is_absolute() or url.startswith("file:"):
        return url
    try:
        return quote(Path(os.path.relpath(path, output)).as_posix())
    except ValueError:  # another drive
        return path.as_uri()
