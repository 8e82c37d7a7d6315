# SPDX-License-Identifier: Apache-2.0
"""Keeps the architecture: which way imports point, who may import what, and what nobody may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"shared": ROOT / "shared", "daemon": ROOT / "daemon", "addon": ROOT / "addon"}
PRODUCT = (*SOURCES, "packaging", "scripts", "benchmarks")

# ---- the house as a table


DAEMON = (
    "cli",
    "cli_batch",
    "cli_bench",
    "cli_jobs",
    "cli_log",
    "cli_keys",
    "terminal",
    "demo",
    "bench",
    "bundle",
    "doctor",
    "shots",
    "showing",
    "starter",
    "morph",
    "joining",
    "server",
    "metrics",
    "doors",
    "porter",
    "report",
    "report_page",
    "jobs",
    "models",
    "authorised",
    "keys",
    "address",
    "config",
    "devices",
    "logs",
    "log_file",
    "cover",
    "private",
    "render",
    "engines",
    "examples",
    "toon",
    "images",
    "icc",
    "headers",
    "pixels",
    "placing",
)
"""The daemon's rooms from left to right. An arrow may skip rooms; none points left."""

JOBS = ("dispatch", "child", "worker", "repair", "store", "link", "folder", "job")
ADDON = (
    "timing_panel",
    "tween_operators",
    "scene_operators",
    "import_tweens",
    "operators",
    "remedies",
    "panels",
    "menus",
    "breakdowns",
    "stale",
    "retiming",
    "tween",
    "hiding",
    "prompts",
    "properties",
    "poller",
    "status",
    "link",
    "setting_up",
    "errands",
    "thumbnails",
    "insert",
    "timeline_file",
    "origins",
    "timing_chart",
    "memory",
    "drawings",
    "scene_keys",
    "capture",
    "preferences",
    "words",
    "vse_compat",
)
SHARED = ("client", "connection", "codec", "messages", "timeline", "easing", "errors")
DIFFMORPHER = (
    "pipeline",
    "pacing",
    "perceptual",
    "framing",
    "inversion",
    "checkpoints",
    "fits",
    "lora",
    "attention",
    "memory",
    "latents",
    "stepping",
    "reschedule",
    "schedule",
)
BENCH = (
    "runs",
    "morph_runs",
    "speed",
    "morph_page",
    "page",
    "curves",
    "tables",
    "memory",
    "morphing",
    "trial",
    "pairs",
    "own",
    "ladder",
    "rivals",
    "sequence",
    "measures",
    "scenes",
    "actors",
    "textures",
)
SHOTS = (
    "screen",
    "watching",
    "running",
    "page",
    "conform",
    "cluster",
    "pool",
    "worker",
    "unit",
    "by_daemon",
    "wishes",
    "film",
    "footprint",
    "estimate",
    "planning",
    "records",
    "reading",
    "timeline",
    "unpack",
    "schemas",
    "tables",
    "shot",
)
"""What is inside a room, from left to right again."""

ORDERS = {
    "keytween": DAEMON,
    "keytween.jobs": JOBS,
    "keytween.engines.diffmorpher": DIFFMORPHER,
    "keytween.bench": BENCH,
    "keytween.shots": SHOTS,
    "addon": ADDON,
    "keytween_wire": SHARED,
}

BLENDERS = {"bpy", "bpy_extras", "bl_operators", "bl_ui"}
"""What Blender brings along."""
TOOLS = {"msgpack", "numpy", "rich", "platformdirs", "filelock", "psutil"}
"""Libraries that the daemon may use anywhere; each of the others has its doors below."""


@dataclass(frozen=True)
class Door:
    """Where a heavy library may be imported. `future`: nothing imports it yet.

    `by_name`: it is imported with `import_module` alone, so that no statement shows it.
    """

    where: tuple[str, ...]
    future: bool = False
    by_name: bool = False


NETWORKS = "packaging/toon_networks.py"
TRAINING = (NETWORKS, "packaging/train_toon.py")
"""What trains the checkpoint `toon`; it is no part of the program."""

DOORS = {
    "zmq": Door(
        (
            "daemon/keytween/server.py",
            "daemon/keytween/doors.py",
            "daemon/keytween/keys.py",
            "daemon/keytween/jobs/link.py",
            "daemon/keytween/jobs/worker.py",
            "shared/keytween_wire/client.py",
        )
    ),
    "cv2": Door(
        ("daemon/keytween/engines/flow/", "daemon/keytween/toon/canvas.py", "daemon/keytween/bench/rivals.py")
    ),
    "skimage": Door(("daemon/keytween/bench/rivals.py",)),
    "OpenImageIO": Door(("daemon/keytween/images.py",)),
    "sqlite3": Door(("daemon/keytween/jobs/store.py", "daemon/keytween/jobs/repair.py")),
    "av": Door(("daemon/keytween/report.py", "daemon/keytween/shots/film.py")),
    "PIL": Door(("daemon/keytween/report.py", "packaging/draw_examples.py")),
    "bpy": Door(
        (
            "addon/",
            "packaging/make_first_tween.py",
            "packaging/record_blender_easing.py",
            "packaging/render_stage.py",
            "benchmarks/addon_tick.py",
            "benchmarks/panel_draw.py",
        )
    ),
    "torch": Door(("daemon/keytween/engines/diffmorpher/", "benchmarks/diffmorpher.py", *TRAINING)),
    "diffusers": Door(("daemon/keytween/engines/diffmorpher/", NETWORKS)),
    "transformers": Door(("daemon/keytween/engines/diffmorpher/", NETWORKS), by_name=True),
    "safetensors": Door(("daemon/keytween/engines/diffmorpher/", "packaging/train_toon.py")),
    "huggingface_hub": Door(("daemon/keytween/models.py",)),
    "peft": Door(("daemon/keytween/engines/diffmorpher/",), future=True),
    "lpips": Door(("daemon/keytween/engines/diffmorpher/",)),
    "opentimelineio": Door(("daemon/keytween/shots/timeline.py",)),
    "prometheus_client": Door(("daemon/keytween/metrics.py",)),
    "textual": Door(("daemon/keytween/shots/screen.py",)),
    "ray": Door(("daemon/keytween/shots/cluster.py",)),
}
"""The doors of heavy libraries: files, or folders with a slash at the end."""

IMPORTERS = {
    "daemon/keytween/engines/__init__.py",
    "daemon/keytween/engines/diffmorpher/checkpoints.py",
}
"""Who may import a module by its name: the doors are blind there, so there are few."""

VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "manager", "managers", "misc"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec"}
LONGEST_FUNCTION = 60

# ---- reading the sources


@dataclass(frozen=True)
class Import:
    """An absolute module name that a file imports; `lazy`: inside a function or for type checkers alone."""

    file: str
    module: str
    lazy: bool


@cache
def files(*roots: str) -> tuple[Path, ...]:
    """The Python files below these folders."""
    return tuple(path for root in roots for path in sorted((ROOT / root).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(path.read_text("utf-8"), str(path))


@cache
def name_of(path: Path) -> str:
    """The file's path from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """The module that a source file is: `keytween.jobs.store`, `addon.poller`."""
    top = name_of(path).split("/")[0]
    relative = path.relative_to(ROOT if top == "addon" else ROOT / top).with_suffix("")
    parts = [part for part in relative.parts if part != "__init__"]
    return ".".join(parts)


MODULES = {module_of(path): path for path in files(*SOURCES)}


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """What a file imports, its own package's modules by their full names."""
    return tuple(
        Import(name_of(path), module, lazy)
        for node, lazy in _statements(tree(path), lazy=False)
        for module in _modules(node, path)
    )


def _statements(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.stmt, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        yield from _statements(child, lazy=lazy or _is_lazy(child))


def _is_lazy(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _modules(node: ast.stmt, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module_of(path).split(".")
            kept = package if path.name == "__init__.py" else package[:-1]
            kept = kept[: len(kept) - node.level + 1]
            base = ".".join([*kept, base] if base else kept)
        inner = [f"{base}.{alias.name}" for alias in node.names]
        found = [name for name in inner if name in MODULES]
        yield from found
        # `from keytween import images` needs no more of the package than the module.
        if len(found) < len(node.names) or not found:
            yield base


def room(module: str, package: str) -> str:
    """The room that a module lies in: `jobs` for `keytween.jobs.store` in `keytween`."""
    return module.removeprefix(package).lstrip(".").split(".")[0]


def points_left(path: Path, package: str, order: tuple[str, ...]) -> list[str]:
    """The imports of a file that do not point right in an order of rooms."""
    own = room(module_of(path), package)
    wrong = []
    for found in imports(path):
        if found.module == package or not found.module.startswith(f"{package}."):
            continue
        other = room(found.module, package)
        if other != own and (own not in order or other not in order or order.index(own) > order.index(other)):
            wrong.append(f"{found.file} imports {found.module}")
    return wrong


# ---- arrows


@pytest.mark.parametrize(
    ("package", "order"),
    ORDERS.items(),
)
def test_no_arrow_points_left(package: str, order: tuple[str, ...]) -> None:
    inside = [p for m, p in MODULES.items() if m.startswith(f"{package}.")]
    assert inside
    assert [line for path in inside for line in points_left(path, package, order)] == []


@pytest.mark.parametrize(
    ("package", "order"),
    ORDERS.items(),
)
def test_every_room_is_in_the_table_and_every_entry_exists(package: str, order: tuple[str, ...]) -> None:
    found = {room(m, package) for m in MODULES if m.startswith(f"{package}.")}
    assert sorted(order) == sorted(found)


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        module: {i.module for i in imports(path) if not i.lazy and i.module in MODULES and i.module != module}
        for module, path in MODULES.items()
    }
    while leaves := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert sorted(graph) == []


def test_the_addon_never_imports_the_daemon() -> None:
    found = {i.module.split(".")[0] for path in files("addon") for i in imports(path)}
    assert found - set(sys.stdlib_module_names) - {"addon"} <= BLENDERS | {"keytween_wire"}


def test_the_wire_package_imports_the_standard_library_and_msgpack_alone() -> None:
    for path in files("shared"):
        allowed = {"keytween_wire", "msgpack"} | ({"zmq"} if path.name == "client.py" else set())
        found = {i.module.split(".")[0] for i in imports(path)} - set(sys.stdlib_module_names)
        assert found <= allowed, name_of(path)


def test_the_daemon_imports_only_libraries_that_are_named_here() -> None:
    found = {i.module.split(".")[0] for path in files("daemon") for i in imports(path)}
    foreign = found - set(sys.stdlib_module_names) - {"keytween", "keytween_wire"}
    assert foreign <= TOOLS | set(DOORS)


# ---- doors


def behind(door: Door, file: str) -> bool:
    """Whether a file is one of the door's, or in its folder."""
    return any(file.startswith(place) if place.endswith("/") else file == place for place in door.where)


def users(library: str) -> set[str]:
    """The files that import a library; where its door says so, those that name it to `import_module`."""
    found = {i.file for path in files(*PRODUCT) for i in imports(path) if i.module.split(".")[0] == library}
    if DOORS[library].by_name:
        named = (path for path in files(*PRODUCT) if library in texts(path))
        found |= {name_of(path) for path in named if behind(DOORS[library], name_of(path))} & importers()
    return found


def texts(path: Path) -> set[str]:
    """Every text that a file's code holds."""
    constants = (node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def importers() -> set[str]:
    """The daemon's files that can import a module by its name."""
    return {
        name_of(path) for path in files("daemon", "shared") if {"import_module", "__import__"} & names(path)
    }


def names(path: Path) -> set[str]:
    """Every name and attribute that a file's code uses."""
    nodes = list(ast.walk(tree(path)))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {
        n.attr for n in nodes if isinstance(n, ast.Attribute)
    }


def test_modules_are_imported_by_name_in_few_places() -> None:
    assert importers() == IMPORTERS


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_is_imported_at_its_doors_alone(library: str) -> None:
    assert sorted(file for file in users(library) if not behind(DOORS[library], file)) == []


@pytest.mark.parametrize("library", DOORS)
def test_every_door_is_used_or_marked_as_future(library: str) -> None:
    door = DOORS[library]
    unused = [place for place in door.where if not any(behind(Door((place,)), f) for f in users(library))]
    assert unused == (list(door.where) if door.future else [])


def test_the_server_reaches_no_engine_library() -> None:
    reached: set[str] = set()
    pending = ["keytween.server"]
    while pending:
        module = pending.pop()
        if module in reached:
            continue
        reached.add(module)
        if module in MODULES:
            pending += [i.module for i in imports(MODULES[module]) if not i.lazy]
            pending += [module.rpartition(".")[0]] if "." in module else []
    tops = {module.split(".")[0] for module in reached}
    assert "zmq" in tops
    assert "keytween.jobs.store" in reached
    assert tops & {"torch", "cv2", "numpy", "OpenImageIO", "av", "PIL"} == set()
    assert tops & {"torch", "diffusers", "transformers", "safetensors", "lpips", "peft"} == set()


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, keytween.cli; keytween.cli.build_parser().format_help(); print(*sys.modules)"
    path = [str(ROOT / "shared"), str(ROOT / "daemon")]
    code = f"import sys; sys.path[:0] = {path!r}; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "argparse" in loaded
    assert loaded & ((TOOLS | set(DOORS)) - {"platformdirs"}) == set()


# ---- what nobody may do


@pytest.mark.parametrize("path", files(*PRODUCT), ids=name_of)
def test_no_file_has_a_name_that_says_nothing(path: Path) -> None:
    assert VAGUE.isdisjoint(re.split(r"[/._]", name_of(path)))


@pytest.mark.parametrize("path", files(*PRODUCT), ids=name_of)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    assert {i.module.split(".")[0] for i in imports(path)} & UNSAFE_MODULES == set()
    called = {
        n.func.id for n in ast.walk(tree(path)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert called & UNSAFE_CALLS == set()


@pytest.mark.parametrize("path", files(*PRODUCT), ids=name_of)
def test_functions_are_short(path: Path) -> None:
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION} == {}
