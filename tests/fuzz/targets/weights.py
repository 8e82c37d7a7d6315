# SPDX-License-Identifier: Apache-2.0
"""Files of checkpoints and LoRAs: safetensors, the folders' JSON, the list of names, fits and pacing curves.

An input's first letter says which of them the rest is. Without PyTorch, what only the diffusion engine reads
is left out.
"""

from __future__ import annotations

import json
import random
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import mutations
from bounds import foreseen, scratch

from keytween import models
from keytween.config import Config
from keytween.engines.weights import fault, is_safetensors
from keytween_wire.codec import pack_dataclass
from keytween_wire.errors import CheckpointUnusable
from keytween_wire.messages import CheckpointInfo

LONGEST = 4096
WORDS = (
    *(
        b'"data_offsets":[0,',
        b'"shape":[',
        b'"dtype":"F32"',
        b'"__metadata__":{',
        b'"BF16"',
        b'"I64"',
        b"1e999",
    ),
    *(
        b'"models": ',
        b'"folder": ',
        b'"files": ',
        b'"source": ',
        b'"revision": ',
        b'"_class_name": ',
        b"null",
    ),
    *(
        b"StableDiffusionPipeline",
        b"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight",
    ),
    *(
        b".lora_B.weight",
        b".lora_down.weight",
        b".alpha",
        b".processor.to_q_lora.down.weight",
        b"clean",
        b"noise",
    ),
    *(
        b"|down",
        b"|up",
        b'"alphas": ',
        b'"changed": ',
        b'"distance": ',
        b"num_train_timesteps",
        b"beta_schedule",
    ),
    *(
        b"prediction_type",
        b"v_prediction",
        b"scaled_linear",
        b"trained_betas",
        b"NaN",
        b"-1",
        b"[]",
        b"{}",
        b"[[",
    ),
)
# At once: PyTorch starts programs of its own while it is imported.
networks = import_module("targets.networks") if find_spec("torch") else None
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def one_input(data: bytes) -> None:
    """Reads the rest as what the first letter says."""
    kind, rest = data[:1], data[1:]
    if kind == b"m":
        _names(rest)
    elif kind == b"i":
        _index(rest)
    elif kind == b"h":
        foreseen(lambda: _shards(rest))
    elif kind == b"s":
        file = scratch() / "any.safetensors"
        file.write_bytes(rest)
        assert is_safetensors(file) in (True, False)
    if networks is not None:
        networks.one_input(data)


@cache
def _config() -> Config:
    return Config(state=scratch() / "state", connection=scratch() / "connection.json")


def _names(data: bytes) -> None:
    """The list of checkpoints, and what a client is told of it."""
    file = models.home(_config()) / "models.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    for model in (foreseen(lambda: models.registered(_config())) or {}).values():
        pack_dataclass(CheckpointInfo(model.name, model.source, model.there))
        assert not model.pulled or model.folder.parent == models.home(_config())
        if model.there and not model.built_in:
            foreseen(lambda model=model: models.verify(model))
    for name in ("toon", "sd15", "mine", "~nobody", "a" * 300, "nul\0"):
        foreseen(lambda name=name: models.resolve(_config(), name))


def _index(data: bytes) -> None:
    foreseen(lambda: models.check(checkpoint(data)))


def _shards(data: bytes) -> None:
    """An index of weights in several files."""
    folder = scratch() / "shards"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_bytes(data)
    raise CheckpointUnusable(name=folder, detail=fault(folder, "model") or "all is there")


def checkpoint(index: bytes) -> Path:
    """A folder with this index and parts that hold the least that can be weights."""
    folder = scratch() / "checkpoint"
    if not folder.is_dir():
        for part in PARTS:
            (folder / part).mkdir(parents=True)
        for part in ("unet", "vae", "text_encoder"):
            stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
            (folder / part / f"{stem}.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "model_index.json").write_bytes(index)
    return folder


def changed(data: bytes, rng: random.Random) -> bytes:
    """One value of the JSON changed; that of safetensors is the header."""
    kind, rest = data[:1], data[1:]
    words = ["folder", "models", "data_offsets", "shape", "dtype", "clean", "a|down", "alphas", "unet"]
    if kind != b"s":
        return kind + json.dumps(mutations.tree(json.loads(rest), words, rng)).encode()
    end = 8 + int.from_bytes(rest[:8], "little")
    header = json.dumps(mutations.tree(json.loads(rest[8:end]), words, rng)).encode()
    return kind + len(header).to_bytes(8, "little") + header + rest[end:]
