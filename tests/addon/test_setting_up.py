"""The daemon's own environment: really made with uv, interrupted, refused, checked, used and removed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

bpy = pytest.importorskip("bpy")

from .conftest import the_tween, turn_until  # noqa: E402

Maker = Callable[..., object]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def preferences(extension: SimpleNamespace) -> Iterator[object]:
    """The add-on's preferences, put back afterwards; nothing is set up before and after."""
    found = extension.preferences.get()
    yield found
    if extension.errands.current is not None:
        extension.errands.current.stop()
        extension.errands.current = None
    found.requirement, found.connection_file, found.with_diffusion = "", "", False
    if extension.setting_up.is_there():
        extension.setting_up.remove()


@pytest.fixture
def online() -> Iterator[None]:
    """The user allows online access."""
    system = bpy.context.preferences.system
    system.use_online_access = True
    assert bpy.app.online_access
    yield
    system.use_online_access = False


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no uv."""
    folders = [f for f in os.environ["PATH"].split(os.pathsep) if not (Path(f) / "uv").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    assert shutil.which("uv") is None


def wait_for(extension: SimpleNamespace, done: Callable[[object], bool], seconds: float = 200.0) -> object:
    """Turns the errand's timer by hand until something is so; in background Blender does not."""
    deadline = time.monotonic() + seconds
    while not done(extension.errands.current):
        assert time.monotonic() < deadline, extension.errands.current.log.read_text()
        extension.errands.tick()
        time.sleep(0.02)
    return extension.errands.current


def ended(errand: object) -> bool:
    """Whether an errand does not run any more."""
    return errand.state.value != "running"


def tiny_wheel(folder: Path, code: str) -> Path:
    """A package `keytween` without requirements, whose program is these lines."""
    info = "keytween-0.0.1.dist-info"
    files = {
        "keytween.py": f"def main():\n    {code}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: keytween\nVersion: 0.0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nkeytween = keytween:main\n",
        f"{info}/RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    path = folder / "keytween-0.0.1-py3-none-any.whl"
    path.write_bytes(buffer.getvalue())
    return path


def test_from_nothing_to_the_first_tween_without_a_terminal(
    scene: object,
    extension: SimpleNamespace,
    preferences: object,
    online: None,
    without_uv: None,
    strip_at: Maker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No uv, no program: one button, interrupted in the middle, and then a tween."""
    monkeypatch.setenv("KEYTWEEN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KEYTWEEN_CONNECTION", str(tmp_path / "connection.json"))
    blenders_own = sorted(os.listdir(Path(bpy.__file__).parents[1]))
    assert not extension.link.has_program()
    assert bpy.ops.keytween.set_up() == {"FINISHED"}
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.keytween.set_up()
    wait_for(extension, lambda errand: errand.label == "Installing the daemon")
    assert bpy.ops.keytween.interrupt() == {"FINISHED"}
    assert extension.setting_up.program() is None
    assert bpy.ops.keytween.set_up() == {"FINISHED"}
    # What was done is not done again: uv is there, and so is the environment.
    assert extension.errands.current.label == "Installing the daemon"
    errand = wait_for(extension, ended)
    assert errand.error is None
    assert errand.state.value == "done"
    assert extension.setting_up.is_current()
    # The daemon was started, and answers.
    turn_until(extension, lambda: extension.poller.STATUS.link.state.value == "ready")
    assert extension.link.daemon_command() == [str(extension.setting_up.program())]
    strip_at(1, 1, 4)
    strip_at(5, 1, 40)
    assert bpy.ops.keytween.tween() == {"FINISHED"}
    assert the_tween()["keytween_state"] == "done"
    assert sorted(os.listdir(Path(bpy.__file__).parents[1])) == blenders_own
    process = extension.poller.STATUS.link._process
    assert bpy.ops.keytween.remove_daemon() == {"FINISHED"}
    turn_until(extension, lambda: process.poll() is not None)
    assert not extension.setting_up.is_there()
    assert not extension.link.has_program()


def test_offline_is_said_plainly(
    extension: SimpleNamespace, preferences: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    assert not bpy.app.online_access
    bpy.ops.keytween.set_up()
    errand = wait_for(extension, ended)
    assert errand.error.code == "KT-310"
    assert extension.setting_up.program() is None


def test_without_uv_and_online_access_nothing_is_begun_and_the_panel_goes_on_saying_why(
    extension: SimpleNamespace, preferences: object, without_uv: None
) -> None:
    with pytest.raises(RuntimeError, match=r"Fetching uv.*online access is off.*KT-310"):
        bpy.ops.keytween.set_up()
    assert not extension.errands.running()
    shown = extension.errands.current
    assert (shown.title, shown.error.code) == (extension.setting_up.TITLE, "KT-310")
    assert extension.remedies.log_file() != shown.log


PIPS_WORDS = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection \
broken by 'OSError('Tunnel connection failed: 403 Forbidden')': /simple/uv/
ERROR: Could not find a version that satisfies the requirement uv (from versions: none)
ERROR: No matching distribution found for uv
"""
DEBIANS_WORDS = """\
The virtual environment was not created successfully because ensurepip is not
available.  On Debian/Ubuntu systems, you need to install the python3-venv
package using the following command.

    apt install python3.14-venv

Failing command: uv/bin/python3
"""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (PIPS_WORDS, "KT-311", "refused a download: Tunnel connection failed: 403 Forbidden."),
        (DEBIANS_WORDS, "KT-309", "install uv or the package python3-venv"),
        ("something else\n", "KT-309", "could not be set up: something else."),
    ],
)
def test_what_programs_say_is_told_in_plain_words(
    extension: SimpleNamespace, tmp_path: Path, words: str, code: str, told: str
) -> None:
    log = tmp_path / "log"
    log.write_text(words)
    error = extension.setting_up.explain(extension.errands.last_line(log), log)
    assert error.code == code
    assert told in str(error)


def test_what_a_step_says_is_not_shown_at_the_next_one(
    extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    speaks = [sys.executable, "-c", "print('hello')"]
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    steps = [extension.errands.Step(name, lambda c=c: c) for name, c in (("Speak", speaks), ("Wait", waits))]
    extension.errands.begin(extension.errands.Errand("Two Steps", steps, tmp_path / "log"))
    wait_for(extension, lambda errand: errand.label == "Wait")
    for _ in range(5):
        extension.errands.tick()
    assert (tmp_path / "log").read_text().strip() == "hello"
    assert extension.errands.current.said == ""


def test_a_network_that_refuses_is_said_plainly(
    extension: SimpleNamespace,
    preferences: object,
    online: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_EXTRA_INDEX_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    bpy.ops.keytween.set_up()
    errand = wait_for(extension, ended)
    assert errand.error.code == "KT-311", errand.log.read_text()
    assert extension.remedies.log_file() == errand.log


def test_a_program_that_does_not_work_is_not_taken(
    extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    preferences.requirement = str(tiny_wheel(tmp_path, "print('hello')"))
    bpy.ops.keytween.set_up()
    errand = wait_for(extension, ended)
    assert errand.error.code == "KT-309"
    assert extension.setting_up.program() is None


def test_what_the_check_finds_is_said(
    extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    finding = "{'subject': 'numpy', 'text': 'not installed', 'good': False, 'next_step': ''}"
    preferences.requirement = str(
        tiny_wheel(tmp_path, f"import json; print(json.dumps([{finding}], indent=1))")
    )
    bpy.ops.keytween.set_up()
    errand = wait_for(extension, ended)
    assert "numpy: not installed" in errand.error.message
    assert (errand.error.code, extension.setting_up.program()) == ("KT-309", None)


def test_disabling_the_extension_ends_what_is_being_set_up(
    extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    waits = tmp_path / "waits.py"
    waits.write_text("import time\ntime.sleep(60)\n")
    step = extension.errands.Step("Waiting", lambda: [sys.executable, str(waits)])
    errand = extension.errands.Errand("Waiting", [step], tmp_path / "log")
    extension.errands.begin(errand)
    process = errand._process
    assert process is not None
    assert process.poll() is None
    extension.errands.unregister()
    assert process.poll() is not None
    assert errand.state.value == "stopped"


def test_a_requirement_may_be_a_name_or_a_file(
    extension: SimpleNamespace, preferences: object, tmp_path: Path
) -> None:
    bundled = extension.setting_up.bundled()
    assert bundled.name == "keytween-0.1.0-py3-none-any.whl"
    assert extension.setting_up.requirement() == f"keytween @ {bundled.resolve().as_uri()}"
    preferences.with_diffusion = True
    assert extension.setting_up.requirement() == f"keytween[diffusion] @ {bundled.resolve().as_uri()}"
    preferences.requirement = "keytween==9.9"
    assert extension.setting_up.requirement() == "keytween==9.9"


def test_the_bundled_wheel_is_whole(extension: SimpleNamespace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zipfile", "-t", str(extension.setting_up.bundled())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Done testing" in done.stdout
