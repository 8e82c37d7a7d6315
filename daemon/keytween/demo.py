"""The demo: the bundled examples through a real daemon, over ZeroMQ, exactly as Blender does it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from importlib.resources import as_file
from pathlib import Path
from typing import Any

from keytween.config import LOOPBACK, Config, load
from keytween.engines import DIFFMORPHER
from keytween.examples import Example, examples, toon_examples
from keytween.models import TOON, find
from keytween.morph import FinishedDrawing, FrameFolder, Morph, by_daemon, prepare
from keytween.report import write_report
from keytween.report_page import Result
from keytween.showing import result_of
from keytween.starter import start
from keytween_wire.client import Client
from keytween_wire.errors import OutputUnwritable
from keytween_wire.messages import Diffusion

FPS = 24.0
_MARK = ".keytween-demo"

Advance = Callable[[Any, int], None]
"""Told of every step (a Step, 0) and every finished frame (None, 1)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo has made: the folder, the page, and how many in-betweens in how many seconds."""

    folder: Path
    report: Path
    drawings: int
    seconds: float

    def lines(self) -> list[str]:
        """What to tell the user."""
        sheets = sorted(self.folder.glob("*-sheet.png"))
        films = sorted(self.folder.glob("*.mp4"))
        return [
            f"{self.drawings} in-betweens came back from the daemon in {self.seconds:.1f} s.",
            *(f"  frames         {folder}" for folder in sorted(self.folder.iterdir()) if folder.is_dir()),
            *(f"  film           {film}" for film in films),
            *(f"  contact sheet  {sheet}" for sheet in sheets),
            f"  report         {self.report}",
            "Open the report in a browser.",
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "drawings": self.drawings,
            "seconds": round(self.seconds, 3),
        }


def total_drawings(engine: str) -> int:
    """How many in-betweens the demo asks for."""
    return sum(example.in_betweens * (len(example.keyframes) - 1) for example in shown_by(engine))


def shown_by(engine: str) -> tuple[Example, ...]:
    """What shows an engine at its best: `diffmorpher` draws what the bundled checkpoint has learnt."""
    return toon_examples() if engine == DIFFMORPHER.name else examples()


def _diffusion(engine: str, config: Config) -> Diffusion:
    if engine != DIFFMORPHER.name:
        return Diffusion()
    # A draft is not only quicker: its inversion is refined, which a small network needs more than steps.
    # And toon is small: at the paper's learning rate a study of a hundred steps leaves faces broken.
    settings: dict[str, Any] = Diffusion.PRESETS["draft"] | {"lora_lr": 1e-3}
    return Diffusion(checkpoint=str(find(config, TOON).folder), **settings)


def run_demo(folder: Path, *, engine: str, advance: Advance) -> Shown:
    """Starts a daemon of its own, tweens every example, stops it, and writes the report."""
    _prepare_folder(folder)
    began = time.monotonic()
    results: list[Result] = []
    diffusion = _diffusion(engine, load())
    with ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keytween-demo-")))
        config = replace(
            load(), state=private / "state", connection=private / "connection.json", bind=LOOPBACK
        )
        daemon = start(config)
        stack.callback(daemon.stop)
        client = stack.enter_context(Client(daemon.connection))
        client.hello(name="keytween demo")
        for example in shown_by(engine):
            morph = _morph(stack, example, engine=engine, diffusion=diffusion)
            results.append(_tween(client, example, morph, folder, advance))
    seconds = time.monotonic() - began
    report = write_report(folder, results)
    return Shown(folder, report, sum(result.drawings for result in results), seconds)


def _prepare_folder(folder: Path) -> None:
    """An earlier demo is replaced; a folder with anything else in it is left alone."""
    mark = folder / _MARK
    try:
        if folder.exists() and any(folder.iterdir()) and not mark.exists():
            detail = "it holds something other than an earlier demo"
            raise OutputUnwritable(name=folder, detail=detail)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.touch()
    except OSError as error:
        raise OutputUnwritable(name=folder, detail=error.strerror or str(error)) from error


def _morph(stack: ExitStack, example: Example, *, engine: str, diffusion: Diffusion) -> Morph:
    """What is asked for an example; its keyframes are files until the stack is closed."""
    files = [stack.enter_context(as_file(keyframe)) for keyframe in example.keyframes]
    return prepare(
        [str(file) for file in files],
        in_betweens=example.in_betweens,
        exposure=example.exposure,
        easing=example.easing,
        engine=engine,
        diffusion=diffusion,
    )


def _tween(client: Client, example: Example, morph: Morph, folder: Path, advance: Advance) -> Result:
    began = time.monotonic()
    frames = FrameFolder(folder / example.name, morph)
    _receive(client, example, morph, frames, advance)
    frames.add_keyframes(frames.suffix())
    settings = (("easing", str(example.easing)), ("exposure", str(example.exposure)))
    return result_of(
        morph, frames, title=example.title, fps=FPS, seconds=time.monotonic() - began, settings=settings
    )


def _receive(client: Client, example: Example, morph: Morph, frames: FrameFolder, advance: Advance) -> None:
    with closing(by_daemon(client, morph, label=example.title)) as drawings:
        for made in drawings:
            if isinstance(made, FinishedDrawing):
                frames.add(made)
                advance(None, 1)
            else:
                advance(made, 0)
