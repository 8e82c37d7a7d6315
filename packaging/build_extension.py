#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds the Blender extension: one zip per platform, and the index of a static repository.

Needs only the standard library, and pip or uv for wheels that are not in the cache yet. The same
sources and the same `wheels.lock` give the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ADDON = ROOT / "addon"
WIRE = ROOT / "shared" / "keytween_wire"
LOCK = ROOT / "packaging" / "wheels.lock"
MARKER = "# packaging/build_extension.py puts `platforms` and `wheels` here."
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: real ones would make every build differ."""

PURE_WHEEL = b"Wheel-Version: 1.0\nGenerator: build_extension\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PLATFORMS = ("linux-x64", "macos-arm64", "windows-x64")
WHEEL_PLATFORMS = {
    "linux-x64": ("manylinux", "x86_64"),
    "macos-arm64": ("macosx", ("arm64", "universal2")),
    "windows-x64": ("win", "amd64"),
}

Files = Mapping[str, bytes]


class Wheel(NamedTuple):
    """A wheel by the parts of its file name, and its SHA-256 in hex."""

    file_name: str
    sha256: str

    @property
    def tags(self) -> list[str]:
        """Name, version, Python tag, ABI tag, platform tags."""
        return self.file_name.removesuffix(".whl").split("-")

    def runs_on(self, platform: str) -> bool:
        """Whether the wheel belongs into that platform's zip."""
        start, ends = WHEEL_PLATFORMS[platform]
        return any(tag.startswith(start) and tag.endswith(ends) for tag in self.tags[4].split("."))


def read_lock(path: Path = LOCK) -> tuple[Wheel, ...]:
    """The wheels of the lock file, in its order; `#` starts a comment."""
    lines = (line.partition("#")[0].split() for line in path.read_text("utf-8").splitlines())
    return tuple(Wheel(name, digest) for name, digest in (line for line in lines if line))


def wheel_bytes(wheel: Wheel, cache: Path) -> bytes:
    """The wheel out of the cache, fetched by name when it is not there; the hash must be the locked one."""
    path = cache / wheel.file_name
    if not path.is_file():
        _download(wheel, cache)
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != wheel.sha256:
        raise SystemExit(f"{path} has the hash {found}, but wheels.lock says {wheel.sha256}")
    return data


def _download(wheel: Wheel, cache: Path) -> None:
    name, version, python, abi, platforms = wheel.tags
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{wheel.sha256}\n", "utf-8")
        tags = [part for tag in platforms.split(".") for part in ("--platform", tag)]
        command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--python-version", f"3.{python.removeprefix('cp3')}", "--implementation", "cp"]
        command += ["--abi", abi, *tags, "--dest", folder, "--requirement", str(wanted)]
        subprocess.run(command, check=True)
        os.replace(Path(folder) / wheel.file_name, cache / wheel.file_name)


def _pip() -> list[str]:
    """How to run pip: uv can bring it along, and a uv environment has none of its own."""
    if uv := shutil.which("uv"):
        return [uv, "run", "--no-project", "--quiet", "--with", "pip", "python", "-m", "pip"]
    return [sys.executable, "-m", "pip"]


def pack(files: Files) -> bytes:
    """A zip with sorted names and fixed times; wheels are compressed already and only stored."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_STORED if name.endswith(".whl") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return buffer.getvalue()


@cache
def daemon_wheel() -> tuple[str, bytes]:
    """The program itself as a wheel, which the extension sets up beside Blender: its file name and bytes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = project["version"]
    info = f"keytween-{version}.dist-info"
    files = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for package in (ROOT / "daemon" / "keytween", WIRE)
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{info}/METADATA"] = _metadata(project).encode()
    files[f"{info}/WHEEL"] = PURE_WHEEL
    scripts = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    return f"keytween-{version}-py3-none-any.whl", pack(files)


def _metadata(project: Mapping[str, Any]) -> str:
    """What installers read of the project: name, version, Python and requirements, by extra."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {one}" for one in project["dependencies"]),
    ]
    for extra, requirements in sorted(project["optional-dependencies"].items()):
        lines += [f"Provides-Extra: {extra}"]
        lines += [f"Requires-Dist: {one}; extra == '{extra}'" for one in requirements]
    return "\n".join(lines) + "\n"


def wire_wheel(version: str) -> tuple[str, bytes]:
    """`keytween_wire` as a pure Python wheel: its file name and bytes."""
    info = f"keytween_wire-{version}.dist-info"
    files = {f"keytween_wire/{path.name}": path.read_bytes() for path in sorted(WIRE.glob("*.py"))}
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.4\nName: keytween_wire\nVersion: {version}\n"
        "Summary: What both ends of Keytween's wire agree on\nLicense-Expression: Apache-2.0\n"
        "License-File: LICENSE\nRequires-Python: >=3.11\n"
    ).encode()
    files[f"{info}/WHEEL"] = PURE_WHEEL
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    return f"keytween_wire-{version}-py3-none-any.whl", pack(files)


def _record(files: Files, own_name: str) -> bytes:
    lines = [f"{name},sha256={_urlsafe_hash(data)},{len(data)}" for name, data in sorted(files.items())]
    return "\n".join([*lines, f"{own_name},,", ""]).encode()


def _urlsafe_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def addon_files() -> dict[str, bytes]:
    """The extension's own files, as they lie in `addon/`."""
    chosen = [path for path in sorted(ADDON.iterdir()) if path.suffix == ".py" or path.name == "LICENSE"]
    return {path.name: path.read_bytes() for path in chosen}


def manifest(platforms: Iterable[str], wheels: Iterable[str]) -> bytes:
    """The manifest with its platforms and wheels filled in."""
    text = (ADDON / "blender_manifest.toml").read_text("utf-8")
    if text.count(MARKER) != 1:
        raise SystemExit(f"blender_manifest.toml must have this line once: {MARKER}")
    listed = "".join(f'\n  "./wheels/{name}",' for name in sorted(wheels))
    filled = f"platforms = {json.dumps(list(platforms))}\nwheels = [{listed}\n]"
    return text.replace(MARKER, filled).encode()


def extension(platform: str, cache: Path) -> dict[str, bytes]:
    """Every file of one platform's zip."""
    version = tomllib.loads((ADDON / "blender_manifest.toml").read_text("utf-8"))["version"]
    wheels = {w.file_name: wheel_bytes(w, cache) for w in read_lock() if w.runs_on(platform)}
    name, data = wire_wheel(version)
    wheels[name] = data
    files = addon_files() | {f"wheels/{name}": data for name, data in wheels.items()}
    files["blender_manifest.toml"] = manifest([platform], wheels)
    # Not in the manifest: Blender itself must not install it.
    program, data = daemon_wheel()
    files[f"daemon/{program}"] = data
    return files


def listing(zip_name: str, data: bytes) -> dict[str, object]:
    """The zip's entry in a static repository's index, as Blender's own generator writes it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry: dict[str, object] = tomllib.loads(archive.read("blender_manifest.toml").decode())
    wheels = entry.pop("wheels")
    entry["python_versions"] = _python_versions(wheels)  # type: ignore[arg-type]
    entry["archive_url"] = f"./{zip_name}"
    entry["archive_size"] = len(data)
    entry["archive_hash"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return entry


def _python_versions(wheels: Iterable[str]) -> list[str]:
    """The Python versions that have wheels of their own; a stable-ABI wheel names none in particular."""
    tags = {Path(wheel).name.removesuffix(".whl").split("-")[2] for wheel in wheels if "-abi3-" not in wheel}
    return sorted(f"3.{tag.removeprefix('cp3')}" for tag in tags if tag.startswith("cp3"))


def build(platforms: Iterable[str], output: Path, cache: Path) -> list[Path]:
    """Writes the zips and `index.json` into `output`; gives the zips' paths."""
    output.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    entries: list[dict[str, object]] = []
    for platform in platforms:
        data = pack(extension(platform, cache))
        version = tomllib.loads((ADDON / "blender_manifest.toml").read_text("utf-8"))["version"]
        path = output / f"keytween-{version}-{platform.replace('-', '_')}.zip"
        path.write_bytes(data)
        entries.append(listing(path.name, data))
        made.append(path)
    index = {"version": "v1", "blocklist": [], "data": entries}
    (output / "index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return made


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the zips go")
    parser.add_argument(
        "--platform", action="append", choices=PLATFORMS, help="only this one; may be repeated"
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "keytween" / "wheels")
    chosen = parser.parse_args(arguments)
    for path in build(chosen.platform or PLATFORMS, chosen.output, chosen.cache):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
