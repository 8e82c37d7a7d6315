"""The built zips, as Blender's own extension tool sees them. Needs `bpy` only to find that tool."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

bpy = pytest.importorskip("bpy")

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "build_extension.py"
Tool = Callable[..., str]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """The build script as a module."""
    spec = importlib.util.spec_from_file_location("build_extension", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_extension"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the zips of all platforms and their index."""
    output = tmp_path_factory.mktemp("dist")
    assert builder.main(["--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def tool() -> Tool:
    """Runs Blender's extension tool; its failure is the test's."""
    script = Path(importlib.import_module("bl_pkg").__file__ or "").parent / "cli" / "blender_ext.py"

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_there_is_one_zip_for_each_platform(built: Path) -> None:
    names = [path.name for path in sorted(built.glob("*.zip"))]
    assert names == [f"keytween-0.1.0-{name}.zip" for name in ("linux_x64", "macos_arm64", "windows_x64")]


def test_blender_finds_the_zips_valid(built: Path, tool: Tool) -> None:
    for path in built.glob("*.zip"):
        assert "Success" in tool("validate", path)


def test_blender_can_build_the_same_sources(built: Path, tool: Tool, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    output.mkdir()
    with zipfile.ZipFile(built / "keytween-0.1.0-linux_x64.zip") as archive:
        archive.extractall(source)
    tool("build", "--source-dir", source, "--output-dir", output, "--split-platforms", "--valid-tags=")
    (again,) = output.glob("*.zip")
    with zipfile.ZipFile(again) as theirs, zipfile.ZipFile(built / "keytween-0.1.0-linux_x64.zip") as ours:
        assert set(theirs.namelist()) == set(ours.namelist())


def test_the_index_is_the_one_that_blender_writes(built: Path, tool: Tool, tmp_path: Path) -> None:
    for path in built.glob("*.zip"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tool("server-generate", "--repo-dir", tmp_path)
    ours, theirs = (json.loads((folder / "index.json").read_text()) for folder in (built, tmp_path))
    for index in (ours, theirs):
        index["data"].sort(key=lambda entry: entry["archive_url"])
    assert ours == theirs


def test_two_builds_are_the_same_bytes(builder: ModuleType, built: Path, tmp_path: Path) -> None:
    assert builder.main(["--output", str(tmp_path), "--platform", "linux-x64"]) == 0
    name = "keytween-0.1.0-linux_x64.zip"
    assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_each_zip_holds_a_wheel_for_each_python(built: Path) -> None:
    for path in built.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            wheels = [Path(name).name for name in archive.namelist() if name.startswith("wheels/")]
        pythons = sorted(wheel.split("-")[2] for wheel in wheels if wheel.startswith("msgpack"))
        assert pythons == ["cp311", "cp313", "cp314"]
        assert sorted(w.split("-")[2:4] for w in wheels if w.startswith("pyzmq")) == [
            ["cp311", "cp311"],
            ["cp312", "abi3"],
        ]
        assert len([w for w in wheels if w.startswith("keytween_wire")]) == 1


def test_nothing_but_the_extension_is_in_the_zip(built: Path) -> None:
    with zipfile.ZipFile(built / "keytween-0.1.0-linux_x64.zip") as archive:
        names = {name for name in archive.namelist() if not name.startswith(("wheels/", "daemon/"))}
    suffixes = {Path(name).suffix for name in names}
    assert suffixes == {".py", ".toml", ""}
    assert {"LICENSE", "blender_manifest.toml", "__init__.py"} <= names


def test_the_wire_wheels_record_is_right(builder: ModuleType) -> None:
    import io

    name, data = builder.wire_wheel("0.1.0")
    assert name == "keytween_wire-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        record = archive.read("keytween_wire-0.1.0.dist-info/RECORD").decode().splitlines()
        listed = dict(line.split(",", 1) for line in record)
        assert set(listed) == set(archive.namelist())
        for file_name, rest in listed.items():
            if rest != ",":
                digest = builder._urlsafe_hash(archive.read(file_name))
                assert rest == f"sha256={digest},{len(archive.read(file_name))}"


def test_the_daemons_wheel_is_what_the_projects_own_build_makes(builder: ModuleType) -> None:
    import io

    name, data = builder.daemon_wheel()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        metadata = archive.read("keytween-0.1.0.dist-info/METADATA").decode()
        record = archive.read("keytween-0.1.0.dist-info/RECORD").decode().splitlines()
        entry = archive.read("keytween-0.1.0.dist-info/entry_points.txt").decode()
    assert name == "keytween-0.1.0-py3-none-any.whl"
    assert {line.partition(",")[0] for line in record} == names
    sources = {
        path.relative_to(package.parent).as_posix()
        for package in (builder.ROOT / "daemon" / "keytween", builder.WIRE)
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {n for n in names if ".dist-info/" not in n} == sources
    assert "Requires-Dist: numpy>=1.26\n" in metadata
    assert "Requires-Dist: torch>=2.10; extra == 'diffusion'\n" in metadata
    assert "Requires-Python: >=3.11,<3.14\n" in metadata
    assert entry == "[console_scripts]\nkeytween = keytween.cli:main\n"


def test_the_daemons_wheel_is_in_the_zip_but_not_for_blender(built: Path) -> None:
    for path in built.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert "daemon/keytween-0.1.0-py3-none-any.whl" in archive.namelist()
            assert "daemon/" not in archive.read("blender_manifest.toml").decode()


def test_a_wheel_with_another_hash_is_refused(builder: ModuleType, tmp_path: Path) -> None:
    wheel = builder.read_lock()[0]
    (tmp_path / wheel.file_name).write_bytes(b"not the wheel")
    with pytest.raises(SystemExit, match=hashlib.sha256(b"not the wheel").hexdigest()):
        builder.wheel_bytes(wheel, tmp_path)


def test_versions_agree(builder: ModuleType) -> None:
    import tomllib

    manifest = tomllib.loads((builder.ADDON / "blender_manifest.toml").read_text("utf-8"))
    project = tomllib.loads((builder.ROOT / "pyproject.toml").read_text("utf-8"))
    namespace: dict[str, str] = {}
    line = next(
        x for x in (builder.WIRE / "__init__.py").read_text().splitlines() if x.startswith("__version__")
    )
    exec(line, namespace)
    assert manifest["version"] == project["project"]["version"] == namespace["__version__"]
