# SPDX-License-Identifier: Apache-2.0
"""Nothing is ever unpickled or evaluated, nor asked of a library. tests/diffusion has the attacks on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from figures import Measured

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("daemon", "shared", "addon", "packaging", "scripts", "benchmarks")
MODULES = {"pickle", "cPickle", "_pickle", "pickle5", "dill", "cloudpickle", "shelve", "marshal"} | {
    "joblib",
    "jsonpickle",
    "yaml",
    "code",
}
"""What reads data that can run code, and what runs text."""
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.package.PackageImporter",
    "numpy.load",
    "np.load",
    "numpy.lib.format.read_array",
    "pandas.read_pickle",
}
ARGUMENTS = {
    "allow_pickle": True,
    "trust_remote_code": True,
    "use_safetensors": False,
    "safe_serialization": False,
    "weights_only": False,
}
"""Arguments that ask a library for it; whatever is not the other constant counts as that."""
IMPORTERS = {"import_module", "find_spec"}


def sins(tree: ast.AST) -> Iterator[str]:
    """What a file does that could run code from data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            yield from (name for name in names if name.split(".")[0] in MODULES or name in CALLS)
        elif isinstance(node, ast.Call):
            yield from _sins_of_call(node)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from _asked((k.value, v) for k, v in pairs if isinstance(k, ast.Constant))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS:
            yield ast.unparse(node)


def _sins_of_call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in BUILT_IN:
        yield node.func.id
    yield from _asked((keyword.arg, keyword.value) for keyword in node.keywords)
    name = ast.unparse(node.func).rpartition(".")[2]
    if name in IMPORTERS and node.args and isinstance(node.args[0], ast.Constant):
        yield from (m for m in [str(node.args[0].value).split(".")[0]] if m in MODULES)


def _asked(pairs: Iterator[tuple[object, ast.expr]]) -> Iterator[str]:
    for name, value in pairs:
        if isinstance(name, str) and name in ARGUMENTS:
            harmless = isinstance(value, ast.Constant) and value.value is (not ARGUMENTS[name])
            if not harmless:
                yield f"{name}={ast.unparse(value)}"


def test_no_file_of_the_product_unpickles_or_evaluates(measured: Measured) -> None:
    files = [path for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]
    assert {path.relative_to(ROOT).parts[0] for path in files} >= {"daemon", "shared", "addon", "packaging"}
    found = {
        path.relative_to(ROOT).as_posix(): told
        for path in files
        if (told := sorted(sins(ast.parse(path.read_text("utf-8")))))
    }
    assert found == {}
    measured("8-pickle", f"{len(files)} files read: none unpickles, evaluates, or asks a library to")


def test_whoever_loads_weights_asks_for_safetensors() -> None:
    """`from_pretrained` falls back to pickled weights unless it is told not to."""
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "daemon").rglob("*.py")}
    loaders = {name: text for name, text in texts.items() if "from_pretrained(" in text}
    assert list(loaders) == ["checkpoints.py"]
    assert '"use_safetensors": True' in loaders["checkpoints.py"]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as d",
        "import yaml",
        "from importlib import import_module\nimport_module('cloudpickle')",
        "import torch\ntorch.load('a')",
        "import torch\ntorch.load('a', weights_only=True)",
        "import torch\nread = torch.load",
        "from torch import load",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "open_it(path, allow_pickle=maybe)",
        "settings = {'trust_remote_code': True}",
        "f(weights_only=False)",
        "f(use_safetensors=None)",
        "eval(text)",
        "exec(compile(text, '', 'exec'))",
        "__import__('os')",
    ],
)
def test_each_way_would_be_found(text: str) -> None:
    assert list(sins(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "network.eval()",
        "import re\nre.compile('a')",
        "f(trust_remote_code=False, use_safetensors=True, weights_only=True)",
        "import json\njson.load(file)",
    ],
)
def test_what_is_harmless_is_not_found(text: str) -> None:
    assert list(sins(ast.parse(text))) == []
