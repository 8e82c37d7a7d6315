"""The command line as a user meets it: files in, files out, errors in plain words, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from discs import draw_disc, request_for
from keytween import cli, demo, models, morph
from keytween.config import Config, load
from keytween.images import read
from keytween.starter import DaemonProcess
from keytween_wire.client import Client
from keytween_wire.messages import Diffusion, FrameMade, MorphRequest

RUN = [sys.executable, "-m", "keytween.cli"]


@pytest.fixture
def run(config: Config, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit code, output, errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


Run = Callable[..., tuple[int, str, str]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[0-9]*"))


def test_two_keyframes_and_five_in_betweens_give_seven_files(
    run: Run, keyframe_files: list[Path], tmp_path: Path
) -> None:
    code, output, _ = run("morph", *keyframe_files, "-n", 5, "-o", tmp_path / "out")
    assert code == 0
    assert names(tmp_path / "out") == [f"{n:04d}.png" for n in range(1, 8)]
    assert "7 frames" in output
    assert (tmp_path / "out" / "index.html").is_file()
    assert list((tmp_path / "out").glob("*.mp4"))
    for number, key in ((1, keyframe_files[0]), (7, keyframe_files[1])):
        assert (tmp_path / "out" / f"{number:04d}.png").read_bytes() == key.read_bytes()


def test_on_twos_each_drawing_is_there_twice_and_the_last_keyframe_once(
    run: Run, keyframe_files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("morph", *keyframe_files, "-n", 2, "--exposure", 2, "-o", out, "--no-report")
    frames = [(out / f"{n:04d}.png").read_bytes() for n in range(1, 8)]
    assert len(names(out)) == 7
    assert [frames[i] == frames[i + 1] for i in (0, 2, 4)] == [True] * 3
    assert len(set(frames)) == 4


def test_a_number_pattern_is_its_files_in_order(run: Run, tmp_path: Path) -> None:
    for number in (2, 10, 1):
        draw_disc(tmp_path / f"k.{number}.png", centre=(20 + number, 30))
    code, _, _ = run("morph", tmp_path / "k.*.png", "-n", 1, "-o", tmp_path / "out", "--no-report")
    assert code == 0
    out = [read(tmp_path / "out" / f"{n:04d}.png").pixels for n in (1, 3, 5)]
    keys = [read(tmp_path / f"k.{n}.png").pixels for n in (1, 2, 10)]
    assert all(np.array_equal(a, b) for a, b in zip(out, keys, strict=True))


def test_keyframes_of_another_format_keep_their_pixels(
    run: Run, keyframe_files: list[Path], tmp_path: Path
) -> None:
    run("morph", *keyframe_files, "-n", 1, "--format", "exr-half", "-o", tmp_path / "out", "--no-report")
    assert names(tmp_path / "out") == ["0001.exr", "0002.exr", "0003.exr"]
    assert read(tmp_path / "out" / "0001.exr").pixels.dtype == np.float16


def test_a_running_daemon_does_the_work_and_keeps_nothing(
    run: Run,
    daemon: DaemonProcess,
    config: Config,
    keyframe_files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert run("morph", *keyframe_files, "-n", 3, "-o", here, "--no-report", "--in-process")[0] == 0
    monkeypatch.setattr(morph, "in_process", None)  # whoever calls it now fails
    assert run("morph", *keyframe_files, "-n", 3, "-o", there, "--no-report")[0] == 0
    assert [p.read_bytes() for p in sorted(here.iterdir())] == [
        p.read_bytes() for p in sorted(there.iterdir())
    ]
    assert list((config.state / "jobs").iterdir()) == []


def test_json_is_one_value(run: Run, keyframe_files: list[Path], tmp_path: Path) -> None:
    code, output, errors = run("morph", *keyframe_files, "-n", 1, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(output)["frames"] == 3
    assert errors == ""
    code, output, _ = run("morph", tmp_path / "none.png", keyframe_files[0], "-o", tmp_path / "out", "--json")
    assert json.loads(output)["error"]["code"] == "KT-101"


def test_what_the_engine_says_of_each_pair_of_keyframes_is_printed_once(
    run: Run, keyframe_files: list[Path], tmp_path: Path
) -> None:
    same = tmp_path / "same.png"
    same.write_bytes(keyframe_files[0].read_bytes())
    command = "morph", keyframe_files[0], same, "-n", 3, "--engine", "flow", "--in-process", "--overwrite"
    _, printed, _ = run(*command, "-o", tmp_path / "out")
    assert printed.count("Keyframes 1 and 2 are the same.") == 1
    assert "Keyframes 1 and 2 are the same." in (tmp_path / "out" / "index.html").read_text()
    _, printed, _ = run(*command, "-o", tmp_path / "out", "--json")
    assert json.loads(printed)["notes"] == ["Keyframes 1 and 2 are the same."]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "error_code"),
    [
        (["missing.png", "key0.png"], 3, "KT-101"),
        (["text.png", "key0.png"], 3, "KT-102"),
        (["cut.png", "key0.png"], 3, "KT-103"),
        (["empty.png", "key0.png"], 3, "KT-104"),
        (["small.png", "key0.png"], 3, "KT-108"),
        (["none.####.png"], 3, "KT-111"),
        (["key0.png"], 4, "KT-201"),
        (["key0.png", "key1.png", "--engine", "magic"], 4, "KT-203"),
        (["key0.png", "key1.png", "--ease", "wobbly"], 4, "KT-204"),
        (["key0.png", "key1.png", "-n", "0"], 4, "KT-205"),
        (["key0.png", "key1.png", "--exposure", "0"], 4, "KT-205"),
        (["key0.png", "key1.png", "--fps", "0"], 4, "KT-205"),
        (["key0.png", "key1.png", "--format", "gif"], 4, "KT-205"),
        (["key0.png", "key1.png", "--colour", "odd"], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_has_its_own_error_and_leaves_no_folder(
    run: Run,
    keyframe_files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    error_code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(keyframe_files[0].read_bytes()[:-60])
    draw_disc(tmp_path / "small.png", centre=(9, 9), size=(32, 32))
    code, _, errors = run("morph", *arguments, "-o", "out")
    assert (code, error_code in errors) == (exit_code, True)
    assert not Path("out").exists()
    assert run("morph", *keyframe_files, "-n", 1, "-o", "out", "--no-report")[0] == 0


def test_frames_that_are_there_are_never_overwritten_unasked(
    run: Run, keyframe_files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("morph", *keyframe_files, "-n", 3, "-o", out, "--no-report")[0] == 0
    (out / "0002.png").write_text("painted over by hand")
    code, _, errors = run("morph", *keyframe_files, "-n", 1, "-o", out, "--no-report")
    assert (code, "KT-209" in errors) == (4, True)
    assert (out / "0002.png").read_text() == "painted over by hand"
    assert run("morph", *keyframe_files, "-n", 1, "-o", out, "--no-report", "--overwrite")[0] == 0
    assert len(names(out)) == 3


def test_an_output_that_is_a_file_is_said_plainly(run: Run, keyframe_files: list[Path]) -> None:
    code, _, errors = run("morph", *keyframe_files, "-o", keyframe_files[0])
    assert (code, "KT-209" in errors) == (4, True)


def test_jobs_without_a_daemon_say_so(run: Run) -> None:
    for command in (["jobs", "list"], ["jobs", "cancel", "--all"], ["jobs", "clear"], ["stop"]):
        code, _, errors = run(*command)
        assert (code, "KT-301" in errors) == (5, True)


def test_jobs_are_listed_cancelled_and_cleared(run: Run, daemon: DaemonProcess, tmp_path: Path) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1280, 720)) for i in range(2)]
    with Client(daemon.connection) as client:
        client.hello()
        ids = []
        for _ in range(2):
            job_id, request, blobs = request_for(files, in_betweens=300)
            client.submit(job_id, request, blobs, label="walk cycle")
            ids.append(job_id)
    code, output, _ = run("jobs", "list")
    assert code == 0
    assert "walk cycle" in output
    assert run("jobs", "cancel", ids[1][:10])[1] == "1 job cancelled.\n"
    listed = {job["job_id"]: job["state"] for job in json.loads(run("jobs", "list", "--json")[1])}
    assert listed[ids[1]] == "cancelled"
    assert run("jobs", "cancel")[0] == 4
    assert run("jobs", "cancel", "zzz")[0] == 7
    assert run("jobs", "cancel", "--all")[1] == "1 job cancelled.\n"
    assert run("jobs", "clear")[1] == "2 jobs cleared.\n"
    assert run("jobs", "list")[1] == "No jobs.\n"
    assert run("stop")[0] == 0
    assert daemon.process.wait(10) == 0


def test_ctrl_c_cancels_the_job_and_says_so(daemon: DaemonProcess, tmp_path: Path) -> None:
    files = [draw_disc(tmp_path / f"k{i}.png", centre=(300, 300), size=(1280, 720)) for i in range(2)]
    command = [
        *RUN,
        "morph",
        *map(str, files),
        "-n",
        "400",
        "-o",
        str(tmp_path / "out"),
        "--engine",
        "dissolve",
    ]
    with (
        Client(daemon.connection) as client,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
    ):
        client.hello()
        job_id = _wait_for_a_job(client)
        for received in client.events(job_id):
            if isinstance(received.message, FrameMade):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "KT-506" in errors
        assert client.jobs(job_id)[0].state.value == "cancelled"


def _wait_for_a_job(client: Client) -> str:
    for _ in range(400):
        if jobs := client.jobs():
            return jobs[0].job_id
        time.sleep(0.05)
    raise AssertionError("no job came")


def test_doctor_is_content_without_a_daemon_and_with_one(
    run: Run, start_daemon: Callable[..., DaemonProcess]
) -> None:
    code, output, _ = run("doctor")
    assert (code, "BAD" in output) == (0, False)
    start_daemon()
    code, output, _ = run("doctor")
    assert code == 0
    assert "not on the list is refused" in output


def test_doctor_notices_a_dead_daemon(run: Run, daemon: DaemonProcess) -> None:
    daemon.process.kill()
    daemon.process.wait()
    code, output, _ = run("doctor")
    assert code == 1
    assert "BAD  daemon" in output


@pytest.mark.timeout(120)
def test_the_demo_shows_every_example_and_leaves_no_daemon(run: Run, config: Config, tmp_path: Path) -> None:
    code, output, _ = run("demo", "-o", tmp_path / "demo")
    assert code == 0
    assert "21 in-betweens" in output
    for example, frames in (("wave", 33), ("leap", 9)):
        assert len(names(tmp_path / "demo" / example)) == frames
    assert (tmp_path / "demo" / "index.html").is_file()
    assert len(list((tmp_path / "demo").glob("*.mp4"))) == 2
    assert not config.connection.exists()


def test_the_demo_of_diffmorpher_shows_what_our_checkpoint_has_learnt() -> None:
    assert [example.name for example in demo.shown_by("diffmorpher")] == ["change", "turn"]
    assert [example.name for example in demo.shown_by("flow")] == ["wave", "leap"]
    asked = demo._diffusion("diffmorpher", load())
    assert asked.checkpoint == str(models.built_in()["toon"].folder)
    assert (asked.steps, asked.refinements, asked.lora_lr) == (20, 1, 1e-3)
    assert demo._diffusion("flow", load()) == Diffusion()


def test_the_demo_replaces_only_an_earlier_demo(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "drawing.png").write_text("precious")
    code, _, errors = run("demo", "-o", tmp_path / "mine")
    assert (code, "KT-209" in errors) == (4, True)
    assert (tmp_path / "mine" / "drawing.png").read_text() == "precious"


def test_switches_and_presets_become_the_requests_settings(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def settings(*arguments: str) -> Diffusion:
        options = cli.build_parser().parse_args(["morph", "a.png", "b.png", "-o", "out", *arguments])
        return cli._diffusion(options, config)

    assert settings() == Diffusion(refinements=1, pace_rounds=9)
    assert settings("--preset", "paper") == Diffusion(reschedule="full", keep_ends=False)
    assert settings("--preset", "draft", "--steps", "7") == Diffusion(steps=7, refinements=1, lora_steps=100)
    switched = settings("--no-lora", "--no-attention", "--no-adain", "--no-reschedule", "--fix-lora", "0.5")
    off = {"use_lora": False, "attention": 0.0, "adain": False, "reschedule": "off", "fixed_lora": 0.5}
    assert switched == Diffusion(**Diffusion.PRESETS["final"], **off)  # type: ignore[arg-type]
    assert settings("--prompt", "a", "--prompt", "b").prompts == ("a", "b")
    assert settings("--lora", "a.safetensors").loras == (str(tmp_path / "a.safetensors"),)


def test_an_arc_is_asked_for_and_changes_drawings_where_motion_turns(run: Run, tmp_path: Path) -> None:
    corner = ((30, 18), (48, 46), (66, 18))
    keys = [draw_disc(tmp_path / f"{i}.png", centre=place) for i, place in enumerate(corner)]
    said = ("morph", *keys, "-n", 1, "--engine", "flow", "--json")
    for path in MorphRequest.PATHS:
        code, output, _ = run(*said, "--path", path, "-o", tmp_path / path)
        assert code == 0
        report = Path(json.loads(output)["report"]).read_text("utf-8")
        assert ("path" in re.findall(r"<dt>(\w+)", report)) == (path == "arc")
    straight, arc = (read((tmp_path / path / "0002.png").read_bytes()) for path in MorphRequest.PATHS)
    assert not np.array_equal(straight.pixels, arc.pixels)
    assert run(*said, "--path", "wavy", "-o", tmp_path / "wavy")[0] == cli.EXIT_USAGE


def test_the_preset_draft_takes_the_quick_look_of_flow(run: Run, tmp_path: Path) -> None:
    keys = [Path(demo.__file__).parent / "examples" / f"leap_{i}.png" for i in (1, 2)]
    for preset in ("draft", "final"):
        said = ("morph", *keys, "-n", 1, "--engine", "flow", "--preset", preset)
        assert run(*said, "-o", tmp_path / preset)[0] == 0
    draft, final = ((tmp_path / preset / "0002.png").read_bytes() for preset in ("draft", "final"))
    assert draft != final


def test_help_names_every_command(run: Run) -> None:
    code, output, _ = run("--help")
    assert code == 0
    assert all(name in output for name in ("demo", "morph", "serve", "jobs", "stop", "doctor"))


def test_the_installed_program_runs() -> None:
    program = shutil.which("keytween", path=str(Path(sys.executable).parent))
    assert program is not None
    assert (
        "keytween 0.1.0"
        in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    )
