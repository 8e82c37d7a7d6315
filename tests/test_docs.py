# SPDX-License-Identifier: Apache-2.0
"""The documentation is under test: a command, message, setting or error without its line there fails."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import keytween.jobs.job  # noqa: F401  (its error class joins the tree on import)
from keytween import cli, config, engines
from keytween_wire import PROTOCOL, messages
from keytween_wire.easing import Easing, Interpolation, Mode
from keytween_wire.errors import KeytweenError, error_classes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README", "ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES = [*(path.with_suffix(".md") for path in TOP), *sorted(DOCS.glob("*.md"))]
TOLD = [
    *messages.MESSAGES.values(),
    messages.MorphRequest,
    messages.Diffusion,
    messages.KeyframeImage,
    messages.JobInfo,
    messages.ErrorInfo,
    messages.EngineInfo,
    messages.CheckpointInfo,
    messages.PresetInfo,
    messages.Limits,
]
"""Every dataclass that the protocol's document tells of."""


@cache
def page(name: str) -> str:
    """The text of a page in docs/."""
    return (DOCS / name).read_text("utf-8")


@cache
def section(name: str, heading: str) -> str:
    """The text below a page's heading, down to the next heading of its level or a higher one."""
    lines = page(name).splitlines()
    start = next((i for i, line in enumerate(lines) if line.lstrip("#") == f" {heading}"), None)
    assert start is not None, f"docs/{name} has no heading {heading!r}"
    level = len(lines[start]) - len(lines[start].lstrip("#"))
    ends = (i for i in range(start + 1, len(lines)) if re.match(rf"#{{1,{level}}} ", lines[i]))
    return "\n".join(lines[start : next(ends, len(lines))])


# ---- the command line


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, subcommands too: `keytween jobs list`."""
    pending = [("keytween", cli.build_parser())]
    while pending:
        name, parser = pending.pop(0)
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending += [(f"{name} {sub}", below) for sub, below in action.choices.items()]


COMMANDS = dict(commands())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    text = section("cli.md", f"`{command}`")
    for action in COMMANDS[command]._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        for name in action.option_strings or [str(action.metavar or action.dest)]:
            assert re.search(rf"`[^`]*(?<![\w-]){re.escape(name)}(?![\w-])[^`]*`", text), name


def test_no_command_is_documented_that_is_not_there() -> None:
    documented = re.findall(r"^#+ `(keytween[^`]*)`$", page("cli.md"), re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)


def test_no_option_is_documented_that_is_not_there() -> None:
    real = {
        name for parser in COMMANDS.values() for action in parser._actions for name in action.option_strings
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page("cli.md")))
    assert named <= real


@pytest.mark.parametrize("code", [0, cli.EXIT_UNEXPECTED, cli.EXIT_USAGE, cli.EXIT_INTERRUPTED])
def test_every_general_exit_code_is_documented(code: int) -> None:
    assert re.search(rf"^\| {code} \|", section("cli.md", "Exit codes"), re.MULTILINE)


@pytest.mark.parametrize("cls", cli.EXIT_CODES)
def test_every_exit_code_of_an_error_is_documented(cls: type[KeytweenError]) -> None:
    row = rf"^\| {cli.EXIT_CODES[cls]} \|.*KT-{cls.code[3]}xx"
    assert re.search(row, section("cli.md", "Exit codes"), re.MULTILINE)


@pytest.mark.parametrize("field", dataclasses.fields(config.Config), ids=lambda f: f.name)
def test_every_setting_is_documented_with_its_default(field: dataclasses.Field[object]) -> None:
    settings = section("cli.md", "Settings")
    row = re.search(
        rf"^\| `{field.name}` \| `{config.PREFIX}{field.name.upper()}` \|(.*)$", settings, re.MULTILINE
    )
    assert row
    if field.default is not dataclasses.MISSING:
        said = field.default if isinstance(field.default, str) else f"{field.default:g}".replace("e+", "e")
        assert said in row[1].replace(" ", "")


# ---- the wire


@pytest.mark.parametrize("name", messages.MESSAGES)
def test_every_message_has_its_heading(name: str) -> None:
    assert section("protocol.md", f"`{name}`")


def test_no_message_is_documented_that_is_not_there() -> None:
    known = [*messages.MESSAGES, *(cls.__name__ for cls in TOLD if cls not in messages.MESSAGES.values())]
    documented = re.findall(r"^### `([^`]+)`$", page("protocol.md"), re.MULTILINE)
    assert sorted(documented) == sorted(known)


@pytest.mark.parametrize("cls", TOLD, ids=lambda cls: cls.__name__)
def test_every_field_is_documented_with_its_default(cls: type) -> None:
    names = {message: name for name, message in messages.MESSAGES.items()}
    rows = _rows(section("protocol.md", f"`{names.get(cls, cls.__name__)}`"))
    fields = dataclasses.fields(cls)
    assert list(rows) == [field.name for field in fields]
    for field in fields:
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert (rows[field.name] == "required") == needed, field.name
        if isinstance(field.default, int | float | str) and field.default != "":
            written = rows[field.name].strip("`").replace(" ", "")
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert written.lower() == default.lower(), field.name


def _rows(text: str) -> dict[str, str]:
    """The fields of a table `| field | type | default | meaning |`, with what its default column says."""
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[2] for row in cells}


@pytest.mark.parametrize(
    "value",
    [
        *(s.value for s in messages.JobState),
        *(c.value for c in messages.Colour),
        *messages.MorphRequest.FILE_FORMATS,
        *messages.MorphRequest.PATHS,
        *messages.Diffusion.RESCHEDULES,
    ],
)
def test_every_value_of_an_enumeration_is_documented(value: str) -> None:
    assert f"`{value}`" in page("protocol.md")


@pytest.mark.parametrize("preset", messages.Diffusion.PRESETS)
def test_every_preset_is_documented_with_its_settings(preset: str) -> None:
    row = re.search(rf"^\| `{preset}` \|(.*)$", section("diffmorpher.md", "Presets"), re.MULTILINE)
    assert row
    said = dict(re.findall(r"`(\w+)` ([\w.]+)", row[1]))
    assert said == {n: str(v).lower() for n, v in messages.Diffusion.PRESETS[preset].items()}


def test_the_protocol_document_has_the_protocol_version() -> None:
    assert f"Protocol {PROTOCOL}" in page("protocol.md").splitlines()[0]


# ---- errors, engines, easings


ERRORS = [cls for cls in error_classes() if cls.__module__.startswith("keytween")]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.code)
def test_every_error_code_has_an_entry_with_its_name_and_sentence(cls: type[KeytweenError]) -> None:
    headings = re.findall(rf"^### ({cls.code} .*)$", page("troubleshooting.md"), re.MULTILINE)
    assert len(headings) == 1
    entry = section("troubleshooting.md", headings[0])
    assert f"`{cls.__name__}`" in entry
    assert "**What to do:**" in entry
    sentence = re.sub(r"{(\w+)}", r"<\1>", cls.sentence)
    assert sentence in " ".join(entry.split())


def test_no_error_code_is_documented_that_is_not_there() -> None:
    codes = {cls.code for cls in ERRORS}
    named = {code for path in PAGES for code in re.findall(r"KT-\d{3}", path.read_text("utf-8"))}
    assert named <= codes


@pytest.mark.parametrize("engine", [info.name for info in engines.engine_infos()] + [engines.AUTO])
def test_every_engine_is_documented(engine: str) -> None:
    assert f"`{engine}`" in section("cli.md", "Engines")
    assert f"`{engine}`" in (ROOT / "README.md").read_text("utf-8") or engine == engines.AUTO


@pytest.mark.parametrize("easing", [str(Easing(i)) for i in Interpolation])
def test_every_easing_is_documented(easing: str) -> None:
    assert f"`{easing}`" in section("timing.md", "Easing")


@pytest.mark.parametrize("mode", [m for m in Mode if m is not Mode.AUTO])
def test_every_easing_mode_is_documented(mode: Mode) -> None:
    suffix = str(Easing(Interpolation.SINE, mode)).removeprefix("sine")
    assert f"`{suffix}`" in section("timing.md", "Easing")


# ---- the Blender extension, read without Blender


def addon_classes(base: str) -> Iterator[ast.ClassDef]:
    """The classes of the extension that derive from `bpy.types.<base>`."""
    for path in sorted((ROOT / "addon").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(b) == f"bpy.types.{base}" for b in node.bases
            ):
                yield node


def constant(cls: ast.ClassDef, name: str) -> str:
    """A text that a class body assigns to a name."""
    values = [
        n.value.value
        for n in cls.body
        if isinstance(n, ast.Assign)
        and ast.unparse(n.targets[0]) == name
        and isinstance(n.value, ast.Constant)
    ]
    assert len(values) == 1, f"{cls.name} has no {name}"
    return str(values[0])


def properties(cls: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The Blender properties of a class: attribute and the name that the user sees."""
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.annotation, ast.Call):
            labels = [k.value for k in node.annotation.keywords if k.arg == "name"]
            shown = labels[0].value if labels and isinstance(labels[0], ast.Constant) else ""
            yield ast.unparse(node.target), str(shown)


def test_the_extension_has_operators_preferences_and_settings() -> None:
    for base in ("Operator", "AddonPreferences", "PropertyGroup"):
        assert list(addon_classes(base)), base


@pytest.mark.parametrize("cls", list(addon_classes("Operator")), ids=lambda cls: cls.name)
def test_every_operator_is_documented(cls: ast.ClassDef) -> None:
    row = rf"^\| {re.escape(constant(cls, 'bl_label'))} \| `{re.escape(constant(cls, 'bl_idname'))}` \|"
    assert re.search(row, section("first-tween.md", "Every button"), re.MULTILINE)


@pytest.mark.parametrize("base", ["AddonPreferences", "PropertyGroup"])
def test_every_preference_and_setting_is_documented(base: str) -> None:
    heading = {"AddonPreferences": "Every preference", "PropertyGroup": "Every setting"}[base]
    text = section("first-tween.md", heading)
    for cls in addon_classes(base):
        for name, shown in properties(cls):
            assert re.search(rf"^\| {re.escape(shown)} \| `{name}` \|", text, re.MULTILINE), name


def test_no_operator_is_documented_that_is_not_there() -> None:
    known = {constant(cls, "bl_idname") for cls in addon_classes("Operator")}
    found = {name for path in PAGES for name in re.findall(r"`(keytween\.[a-z_]+)`", path.read_text("utf-8"))}
    assert found - known - {"keytween.toml", engines.GROUP} == set()


# ---- links, changelog, what must not be written


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    missing = [t for t in relative if not leads_somewhere(path, t)]
    assert missing == []


def leads_somewhere(path: Path, target: str) -> bool:
    """Whether a link's file is there, and its heading in it."""
    name, _, anchor = target.partition("#")
    file = path.parent / name if name else path
    if not file.exists() or not anchor:
        return file.exists()
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return anchor in slugs


def test_every_attack_that_the_threat_model_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text("utf-8")))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(named) > 30
    assert sorted(named - there) == []


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [path.name for path in DOCS.glob("*.md") if f"](docs/{path.name})" not in readme] == []


def test_every_picture_is_shown_somewhere() -> None:
    shown = {Path(t).name for path in PAGES for t in re.findall(r"images/[\w.-]+", path.read_text("utf-8"))}
    assert {path.name for path in (DOCS / "images").glob("*.png")} <= shown


def test_the_readme_has_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "pip install uv && uv run keytween demo" in readme
    assert "pip install uv && scripts/test" in readme


def test_the_architecture_names_every_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = [
        ROOT / "shared" / "keytween_wire",
        ROOT / "daemon" / "keytween",
        ROOT / "addon",
        ROOT / "packaging",
    ]
    files = [p for room in rooms for p in room.rglob("*") if p.suffix in (".py", ".sh", ".toml", ".lock")]
    assert [
        p.name for p in files if p.name != "__init__.py" and not re.search(rf"\b{re.escape(p.name)}", text)
    ] == []


def test_the_changelog_has_unreleased_entries() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased = re.search(r"^## \[Unreleased\]$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert unreleased
    assert re.search(r"^### (Added|Changed|Fixed|Removed|Security)\n+- ", unreleased[1], re.MULTILINE)


ROOMS = (".ci", "addon", "benchmarks", "daemon", "docs", "packaging", "scripts", "shared", "tests")
SUFFIXES = {"", ".json", ".lock", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
REGISTRIES = re.compile(
    r"pypi\.org|pythonhosted\.org|anaconda\.org|npmjs\.org|crates\.io|pytorch\.org/whl|debian\.org"
    r"|ghcr\.io|docker\.io|[a]rtifactory"
)
PLACES = re.compile(r"(?<![\w$}.*~/-])/(?:home/\w+|Users/\w+|root|work|mnt)/|[A-Z]:\\Users\\\w")


def text_files() -> list[Path]:
    """The project's own text files."""
    found = [p for room in ROOMS for p in (ROOT / room).rglob("*") if p.is_file() and p.suffix in SUFFIXES]
    return [
        *found,
        *(p for p in ROOT.iterdir() if p.is_file() and p.suffix in SUFFIXES and p.name != "uv.lock"),
    ]


def test_no_registry_and_no_place_of_a_machine_is_written_anywhere() -> None:
    hits = []
    for path in text_files():
        text = path.read_text("utf-8", errors="replace")
        found = REGISTRIES.findall(text) + PLACES.findall(text)
        hits += [(path.relative_to(ROOT).as_posix(), place) for place in found]
    assert hits == []
