"""The command line: the composition root. Parses, calls, prints; nothing heavy is imported for --help.

It is longer than other files because every command is here, each in a few lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytween import cli_batch, cli_bench, cli_jobs, cli_keys, cli_log
from keytween.terminal import command, print_json, progress, say
from keytween_wire import PROTOCOL, __version__
from keytween_wire.errors import (
    Cancelled,
    DaemonError,
    JobError,
    KeytweenError,
    MessageError,
    PictureError,
    RequestError,
    ShotBusy,
    ShotError,
)
from keytween_wire.messages import Diffusion, MorphRequest

if TYPE_CHECKING:
    from keytween.config import Config
    from keytween.models import Model
    from keytween.morph import FinishedDrawing, Morph, Step
    from keytween_wire.client import Client

EXIT_CODES: dict[type[KeytweenError], int] = {
    PictureError: 3,
    RequestError: 4,
    DaemonError: 5,
    MessageError: 6,
    JobError: 7,
    ShotBusy: cli_batch.EXIT_BUSY,
    ShotError: cli_batch.EXIT_SHOTS,
}
EXIT_UNEXPECTED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEFAULT_FPS = 24.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (`docs/cli.md` lists them)."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return _complain(options, Cancelled(), EXIT_INTERRUPTED)
    except KeytweenError as error:
        code = next((c for cls, c in EXIT_CODES.items() if isinstance(error, cls)), EXIT_UNEXPECTED)
        return _complain(options, error, code)
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_UNEXPECTED


def _complain(options: argparse.Namespace, error: KeytweenError, code: int) -> int:
    if getattr(options, "json", False):
        print_json({"error": {"code": error.code, "message": error.message, "next_step": error.advice}})
    else:
        sys.stderr.write(f"keytween: {error.message}\n  {error.advice}\n  [{error.code}]\n")
    return code


# ---- arguments


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="keytween", description="Makes the drawings between keyframes.")
    parser.add_argument(
        "--version", action="version", version=f"keytween {__version__} (protocol {PROTOCOL})"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_morph(commands)
    _add_serve(commands)
    cli_jobs.add(commands)
    cli_log.add(commands)
    cli_keys.add(commands)
    _add_models(commands)
    cli_batch.add(commands)
    cli_bench.add(commands)
    _add_doctor(commands)
    return parser


def _add_doctor(commands: Any) -> None:
    doctor = command(commands, "doctor", "check the installation, the engines and the daemon", _doctor)
    doctor.add_argument(
        "--bundle", metavar="FILE", nargs="?", type=Path, const=Path(), help="make a zip for a bug report"
    )


def _add_demo(commands: Any) -> None:
    demo = command(commands, "demo", "tween the bundled examples and show the result", _demo)
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("keytween-demo"), help="folder for the results"
    )
    demo.add_argument("--engine", default="flow", help="engine to show (default: flow)")


def _add_morph(commands: Any) -> None:
    morph = command(commands, "morph", "make the in-betweens of two or more pictures", _morph)
    add = morph.add_argument
    add("images", nargs="+", metavar="IMAGE", help="keyframes in order, or a pattern such as walk.####.png")
    add("-o", "--output", type=Path, required=True, help="folder for the numbered frames")
    add("-n", "--in-betweens", type=int, default=7, help="drawings between two keyframes (default: 7)")
    add("--exposure", type=int, default=1, help="timeline frames each drawing is held for (default: 1)")
    add("--ease", default="linear", help="easing, for example sine-in-out (default: linear)")
    add("--path", choices=MorphRequest.PATHS, default="straight", help="how motion runs through keyframes")
    add("--fps", type=float, default=DEFAULT_FPS, help="frames per second of the preview (default: 24)")
    add("--engine", default="auto", help="auto, flow, dissolve or diffmorpher (default: auto)")
    add("--seed", type=int, default=0, help="seed for engines that use chance (default: 0)")
    add(
        "--colour", choices=["auto", "srgb", "scene-linear"], default="auto", help="how to read the keyframes"
    )
    add("--format", default="auto", help="auto, png8, png16, exr-half or exr-float (default: auto)")
    add("--overwrite", action="store_true", help="replace frames that the folder holds already")
    add("--in-process", action="store_true", help="do not use a running daemon")
    add("--no-report", action="store_true", help="write no preview, contact sheet and report")
    _add_diffusion(
        morph.add_argument_group("diffmorpher", "What the diffusion engine does, where it is used.")
    )


def _add_diffusion(group: Any) -> None:
    add = group.add_argument
    add("--checkpoint", help="a checkpoint's folder in diffusers layout, or its name in `models list`")
    add("--preset", choices=sorted(Diffusion.PRESETS), default="final", help="draft, final or paper")
    add(
        "--prompt", action="append", dest="prompts", help="what the pictures show: once, or once per keyframe"
    )
    add("--negative-prompt", help="what they must not show; needs --guidance")
    add("--guidance", type=float, help="how strongly the prompt pulls (default: 1, not at all)")
    add("--steps", type=int, help="denoising steps (default: 50)")
    add(
        "--lambda",
        type=float,
        dest="attention",
        help="share of steps with attention interpolation (default: 0.6)",
    )
    add("--lora-steps", type=int, help="steps of studying each keyframe (default: 200)")
    add("--lora-lr", type=float, help="learning rate of the study (default: 0.0002)")
    add("--lora-rank", type=int, help="rank of the LoRAs (default: 16)")
    add(
        "--lora",
        action="append",
        dest="loras",
        metavar="FILE",
        help="a LoRA in place of the study, per keyframe",
    )
    add("--fix-lora", type=float, dest="fixed_lora", metavar="A", help="keep the LoRA mix at A, 0..1")
    add("--no-lora", action="store_false", dest="use_lora", default=None, help="do not study the keyframes")
    add(
        "--no-attention", action="store_const", const=0.0, dest="attention", help="no attention interpolation"
    )
    add("--no-adain", action="store_false", dest="adain", default=None, help="leave colours to the noise")
    add(
        "--no-reschedule",
        action="store_const",
        const="off",
        dest="reschedule",
        help="do not even out the pace",
    )
    add("--size", type=int, help="side in pixels of the working area (default: the checkpoint's)")


def _diffusion(options: argparse.Namespace, config: Config) -> Diffusion:
    """The diffusion settings: the preset's, then what was given; a checkpoint's name becomes its folder."""
    chosen: dict[str, Any] = dict(Diffusion.PRESETS[options.preset])
    for field in fields(Diffusion):
        given = getattr(options, field.name, None)
        if given is not None:
            chosen[field.name] = tuple(given) if isinstance(given, list) else given
    if options.loras:
        # A running daemon has another working folder.
        chosen["loras"] = tuple(str(Path(file).expanduser().absolute()) for file in options.loras)
    if options.checkpoint and options.engine in ("auto", "diffmorpher"):
        from keytween.joining import leads_away
        from keytween.models import resolve

        # A name on another machine is for the daemon there to resolve.
        elsewhere = not options.in_process and leads_away(config)
        chosen["checkpoint"] = options.checkpoint if elsewhere else resolve(config, options.checkpoint)
    return Diffusion(**chosen)


def _add_serve(commands: Any) -> None:
    serve = command(commands, "serve", "run the daemon", _serve)
    serve.add_argument(
        "--parent", type=int, default=0, help="exit when this process is gone and no job is left"
    )
    serve.add_argument("--state", type=Path, help="folder for jobs and log")


def _add_models(commands: Any) -> None:
    text = "list, add, pull, verify or remove checkpoints"
    models = commands.add_parser("models", help=text, description=text[0].upper() + text[1:] + ".")
    actions = models.add_subparsers(title="actions", metavar="ACTION", required=True)
    command(actions, "list", "list the checkpoints that have a name", _models_list)
    add = command(actions, "add", "give a checkpoint's folder a name", _models_add)
    add.add_argument("path", metavar="PATH", type=Path, help="the folder; it stays where it is")
    add.add_argument("--name", help="its name (default: the folder's)")
    pull = command(actions, "pull", "fetch a known checkpoint", _models_pull)
    pull.add_argument("name", metavar="NAME", help="sd15, sd21 or sdxl")
    pull.add_argument(
        "--revision", help="a commit or tag of the repository (default: the newest, then pinned)"
    )
    verify = command(actions, "verify", "read checkpoints again and compare their digests", _models_verify)
    verify.add_argument("name", metavar="NAME", nargs="?", help="which one (default: all)")
    remove = command(actions, "remove", "forget a checkpoint; one that was pulled is deleted", _models_remove)
    remove.add_argument("name", metavar="NAME", help="which one")


# ---- morph and demo


def _morph(options: argparse.Namespace) -> int:
    from keytween import morph as morphs
    from keytween.config import load
    from keytween_wire.easing import Easing
    from keytween_wire.errors import BadSetting
    from keytween_wire.messages import Colour

    if not 0 < options.fps <= 1000:
        raise BadSetting(name="fps", value=options.fps, detail="it must lie between 0 and 1000")
    config = load()
    prepared = morphs.prepare(
        options.images,
        in_betweens=options.in_betweens,
        exposure=options.exposure,
        easing=Easing.parse(options.ease),
        engine=options.engine,
        seed=options.seed,
        colour=Colour(options.colour),
        file_format=options.format,
        diffusion=_diffusion(options, config),
        path=options.path,
        effort="draft" if options.preset == "draft" else "full",
        max_megapixels=config.max_megapixels,
    )
    folder = morphs.FrameFolder(options.output, prepared, overwrite=options.overwrite)
    started = time.monotonic()
    with _runner(options, config, prepared) as drawings:
        _write_all(options, drawings, folder, prepared)
    seconds = time.monotonic() - started
    result = {"folder": str(folder.folder), "frames": len(folder.written), "seconds": round(seconds, 3)}
    if not options.no_report:
        from keytween.showing import show

        title = options.output.name or "Morph"
        settings = [("easing", options.ease), ("exposure", str(options.exposure))]
        settings += [("path", options.path)] if options.path != "straight" else []
        report = show(prepared, folder, title=title, fps=options.fps, seconds=seconds, settings=settings)
        result["report"] = str(report)
    _finish_morph(options, {**result, "notes": list(folder.notes)})
    return 0


def _finish_morph(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json:
        print_json(result)
        return
    say(options, f"{result['frames']} frames in {result['folder']} ({result['seconds']:.1f} s)")
    for note in result["notes"]:
        say(options, note)
    if "report" in result:
        say(options, f"Report: {result['report']}")


@contextmanager
def _runner(
    options: argparse.Namespace, config: Config, prepared: Morph
) -> Iterator[Iterator[Step | FinishedDrawing]]:
    """The drawings as they come: from the daemon when one is up, otherwise made here."""
    from keytween.morph import by_daemon, in_process

    client = None if options.in_process else _find_daemon(config)
    if client is None:
        local = in_process(prepared, fits=config.state / "fits", max_megapixels=config.max_megapixels)
        with closing(local) as drawings:
            yield drawings
        return
    with client, closing(by_daemon(client, prepared, label=options.output.name)) as drawings:
        yield drawings


def _find_daemon(config: Config) -> Client | None:
    """A client of the running daemon, None when there is none."""
    from keytween_wire.client import Client
    from keytween_wire.connection import Connection
    from keytween_wire.errors import DaemonNotRunning, DaemonUnreachable

    try:
        client = Client(Connection.load(config.connection))
    except DaemonNotRunning:
        return None
    try:
        client.hello(name="keytween morph")
    except DaemonUnreachable:
        client.close()
        if client.connection.is_joined:
            raise
        return None
    except KeytweenError:
        client.close()
        raise
    return client


def _write_all(options: argparse.Namespace, drawings: Iterator[Any], folder: Any, prepared: Morph) -> None:
    from keytween.morph import Step

    with progress(options, prepared.request.total) as advance:
        for made in drawings:
            if isinstance(made, Step):
                advance(made, 0)
            else:
                folder.add(made)
                advance(None, 1)
    folder.add_keyframes(folder.suffix())


def _demo(options: argparse.Namespace) -> int:
    from keytween.demo import run_demo, total_drawings

    with progress(options, total_drawings(options.engine)) as advance:
        shown = run_demo(options.output, engine=options.engine, advance=advance)
    if options.json:
        print_json(shown.as_json())
    else:
        for line in shown.lines():
            say(options, line)
    return 0


# ---- the daemon


def _serve(options: argparse.Namespace) -> int:
    import faulthandler
    import os

    from keytween import logs
    from keytween.address import Address
    from keytween.config import load
    from keytween.private import own_folder
    from keytween.server import serve

    # Jobs, frames and logs are the user's alone, whatever the shell's own mask says.
    os.umask(0o077)
    config = load(state=options.state)
    own_folder(config.state)
    logs.begin(config.log, process="daemon")
    faulthandler.enable(logs.open_output(config.log))

    def announce(connection: Any) -> None:
        address = Address.to_listen_at(config.bind)
        if options.json:
            ready = {"endpoint": connection.endpoint, "pid": connection.pid, "log": config.log}
            print_json(ready | {"bind": str(address), "key": connection.server_key})
        say(options, f"Keytween's daemon is ready at {connection.endpoint} (process {connection.pid}).")
        if not address.is_loopback:
            say(options, f"Other machines join it at {address} by its key {connection.server_key}")
        sys.stdout.flush()

    serve(config, parent=options.parent, announce=announce)
    return 0


# ---- models


def _models_list(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.models import KNOWN, registered

    models = registered(load())
    rows = [_model_json(model) for model in models.values()]
    rows += [{"name": n, "state": "not pulled", "source": r[0]} for n, r in KNOWN.items() if n not in models]
    if options.json:
        print_json(rows)
    else:
        _print_models(rows)
    return 0


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "state": "there" if model.there else "gone",
        "folder": str(model.folder),
        "pulled": model.pulled,
        "source": model.source,
        "revision": model.revision,
        "bytes": model.size,
    }


def _print_models(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "state", "size", "folder", "source", box=None)
    for row in rows:
        size = _size(row["bytes"]) if "bytes" in row else ""
        source = f"{row['source']} {row.get('revision', '')[:8]}".strip()
        table.add_row(row["name"], row["state"], size, row.get("folder", ""), source)
    Console().print(table)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _models_add(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.models import add

    with _reading(options) as advance:
        model = add(load(), options.path, name=options.name, advance=advance)
    return _report_model(options, model, f"{model.name} is the checkpoint in {model.folder}.")


def _models_pull(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.models import pull

    with _reading(options) as advance:
        model = pull(load(), options.name, revision=options.revision, quiet=options.json, advance=advance)
    text = f"{model.name} is {model.source} at revision {model.revision}, in {model.folder}."
    return _report_model(options, model, text)


def _models_verify(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.models import find, registered, verify

    models = [find(load(), options.name)] if options.name else list(registered(load()).values())
    faults: dict[str, dict[str, str]] = {}
    with _reading(options) as advance:
        for model in models:
            faults[model.name] = (
                verify(model, advance=advance) if model.there else {str(model.folder): "gone"}
            )
    if options.json:
        print_json(faults)
    for name, found in faults.items():
        say(options, f"{name}: {'; '.join(f'{f} is {s}' for f, s in found.items()) or 'every file is whole'}")
    return EXIT_UNEXPECTED if any(faults.values()) else 0


def _models_remove(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.models import remove

    model = remove(load(), options.name)
    end = "is deleted" if model.pulled else f"is forgotten; {model.folder} stays"
    return _report_model(options, model, f"{model.name} {end}.")


def _report_model(options: argparse.Namespace, model: Model, text: str) -> int:
    if options.json:
        print_json(_model_json(model))
    say(options, text)
    return 0


@contextmanager
def _reading(options: argparse.Namespace) -> Iterator[Callable[[str, int], None]]:
    """How much of a checkpoint has been read; nothing with --json."""
    if options.json:
        yield lambda file, count: None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("reading {task.description}"), DownloadColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)

    def advance(file: str, count: int) -> None:
        bar.start()  # only now: while a checkpoint is fetched, the hub's library shows bars of its own
        bar.update(task, description=file, advance=count)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


# ---- doctor


def _doctor(options: argparse.Namespace) -> int:
    from keytween.config import load
    from keytween.doctor import examine

    if options.bundle is not None:
        return _bundle(options)
    findings = examine(load())
    if options.json:
        print_json([finding.as_json() for finding in findings])
    for finding in findings:
        say(options, str(finding))
    return 0 if all(finding.good for finding in findings) else EXIT_UNEXPECTED


def _bundle(options: argparse.Namespace) -> int:
    from keytween.bundle import default_name, write
    from keytween.config import load

    path = options.bundle if options.bundle.name else Path(default_name())
    parts = write(load(), path)
    if options.json:
        files = [{"name": part.name, "holds": part.holds, "bytes": len(part.data)} for part in parts]
        print_json({"bundle": str(path.absolute()), "files": files})
    say(options, f"{path} holds:")
    for part in parts:
        say(options, f"  {part.name:15} {len(part.data) / 1000:7.1f} kB  {part.holds}")
    say(
        options,
        "Pictures, prompts, names and keys are left out. Look through it before you show it to anybody.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
