"""Pickled weights that would run code: nobody opens them, whatever they are called and wherever they lie."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file  # noqa: E402

from keytween.engines.base import Frame  # noqa: E402
from keytween.engines.diffmorpher import DiffMorpher, lora, perceptual  # noqa: E402
from keytween.images import Picture  # noqa: E402
from keytween_wire.errors import CheckpointUnusable, LoraUnusable  # noqa: E402
from keytween_wire.messages import Diffusion, KeyframeImage, MorphRequest  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
BIN = {"text_encoder": "pytorch_model.bin"}


class Attack:
    """Weights that write a file when they are unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))

    def plain(self, file: Path) -> None:
        file.write_bytes(pickle.dumps({"weights": self}))

    def saved(self, file: Path) -> None:
        torch.save({"weights": self}, file)

    @property
    def ran(self) -> bool:
        return self.marker.exists()


@pytest.fixture
def attack(tmp_path: Path) -> Attack:
    """One that is known to work where it is let in."""
    attack, file = Attack(tmp_path / "marker"), tmp_path / "proof"
    attack.plain(file)
    pickle.loads(file.read_bytes())["weights"].close()
    assert attack.ran
    attack.marker.unlink()
    attack.saved(file)
    torch.load(file, weights_only=False)["weights"].close()
    assert attack.ran
    attack.marker.unlink()
    return attack


@pytest.fixture
def folder(tiny_sd: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "checkpoint"))


@pytest.fixture
def draw(drawings: tuple[np.ndarray, np.ndarray]) -> Callable[..., int]:
    """Draws with a checkpoint's folder; how many drawings came."""

    def draw(checkpoint: Path, **settings: Any) -> int:
        images = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(2))
        quick = {"steps": 2, "lora_steps": 1, "lora_rank": 2} | settings
        asked = MorphRequest(images, ((0.5,),), diffusion=Diffusion(str(checkpoint), **quick))
        made = DiffMorpher(device="cpu").morph(asked, [Picture(image) for image in drawings])
        return sum(isinstance(m, Frame) for m in made)

    return draw


# ---- checkpoints


@pytest.mark.parametrize("part", STEMS)
def test_a_checkpoint_with_pickled_weights_is_refused_unopened(
    attack: Attack, folder: Path, draw: Callable[..., int], part: str
) -> None:
    weights = folder / part / f"{STEMS[part]}.safetensors"
    weights.unlink()
    attack.saved(weights.with_name(BIN.get(part, f"{STEMS[part]}.bin")))
    with pytest.raises(CheckpointUnusable, match=f"its {part} has pickled weights, which are never loaded"):
        draw(folder)
    assert not attack.ran


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize("how", ["plain", "saved"])
def test_a_pickle_that_is_named_safetensors_is_refused_unopened(
    attack: Attack, folder: Path, draw: Callable[..., int], part: str, how: str
) -> None:
    getattr(attack, how)(folder / part / f"{STEMS[part]}.safetensors")
    with pytest.raises(CheckpointUnusable, match=f"its {part} has a .* that is cut off or no safetensors"):
        draw(folder)
    assert not attack.ran


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize("name", ["evil.bin", "evil.safetensors", "../../evil.safetensors"])
def test_an_index_leads_to_no_pickle(
    attack: Attack, folder: Path, draw: Callable[..., int], part: str, name: str
) -> None:
    weights = folder / part / f"{STEMS[part]}.safetensors"
    names = dict.fromkeys(load_file(weights), name)
    weights.unlink()
    attack.saved(weights.with_name(Path(name).name))
    attack.saved(folder.parent / "evil.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointUnusable, match=f"its {part} has an? (index that names|evil)"):
        draw(folder)
    assert not attack.ran


def test_a_checkpoint_in_shards_is_read(folder: Path, draw: Callable[..., int]) -> None:
    """The same index, as it should be."""
    from safetensors.torch import save_file

    weights = folder / "unet" / f"{STEMS['unet']}.safetensors"
    tensors = list(load_file(weights).items())
    parts = {"a.safetensors": dict(tensors[::2]), "b.safetensors": dict(tensors[1::2])}
    weights.unlink()
    for name, part in parts.items():
        save_file(part, weights.with_name(name), metadata={"format": "pt"})
    named = {key: name for name, part in parts.items() for key in part}
    size = sum(tensor.nbytes for _, tensor in tensors)
    index = {"metadata": {"total_size": size}, "weight_map": named}
    weights.with_name(f"{weights.name}.index.json").write_text(json.dumps(index))
    assert draw(folder) == 1


def test_a_pickle_beside_the_weights_is_left_alone(
    attack: Attack, folder: Path, draw: Callable[..., int]
) -> None:
    for part, stem in STEMS.items():
        for name in (f"{stem}.bin", "pytorch_model.bin", "adapter_model.bin", f"{stem}.fp16.bin"):
            attack.saved(folder / part / name)
    assert draw(folder) == 1
    assert not attack.ran


def test_an_adapter_beside_the_weights_is_refused_unopened(
    attack: Attack, folder: Path, draw: Callable[..., int]
) -> None:
    """transformers would load it with PEFT, pickled or not."""
    (folder / "text_encoder" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    attack.saved(folder / "text_encoder" / "adapter_model.bin")
    with pytest.raises(CheckpointUnusable, match="its text_encoder has an adapter beside it"):
        draw(folder)
    assert not attack.ran


def test_code_that_a_checkpoint_brings_is_not_run(
    attack: Attack, folder: Path, draw: Callable[..., int]
) -> None:
    for part, cls in (("text_encoder", "AutoModel"), ("unet", "UNet2DConditionModel")):
        (folder / part / "evil.py").write_text(f"open({str(attack.marker)!r}, 'w')\n")
        config = json.loads((folder / part / "config.json").read_text())
        config |= {"auto_map": {cls: "evil.Evil"}, "custom_pipeline": "evil"}
        (folder / part / "config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["evil", "UNet2DConditionModel"]}))
    assert draw(folder) == 1
    assert not attack.ran


# ---- LoRAs


@pytest.mark.parametrize("name", ["lora.pt", "lora.ckpt", "lora.bin", "lora.PTH"])
@pytest.mark.parametrize("how", ["plain", "saved"])
def test_a_pickled_lora_is_refused_unopened(
    attack: Attack, tiny_sd: Path, draw: Callable[..., int], tmp_path: Path, name: str, how: str
) -> None:
    getattr(attack, how)(tmp_path / name)
    with pytest.raises(LoraUnusable, match=f"{name} .* are pickled, which can run code") as refused:
        draw(tiny_sd, loras=(str(tmp_path / name),))
    assert "how to convert" in refused.value.advice
    assert not attack.ran


@pytest.mark.parametrize("name", ["lora.safetensors", "lora"])
@pytest.mark.parametrize("how", ["plain", "saved"])
def test_a_lora_is_judged_by_its_bytes(
    attack: Attack, tiny_sd: Path, draw: Callable[..., int], tmp_path: Path, name: str, how: str
) -> None:
    getattr(attack, how)(tmp_path / name)
    with pytest.raises(LoraUnusable, match="no safetensors file, whatever its name says"):
        draw(tiny_sd, loras=(str(tmp_path / name),))
    assert not attack.ran


def test_the_way_to_convert_that_the_documentation_gives_works(
    attack: Attack, tiny_sd: Path, draw: Callable[..., int], tmp_path: Path
) -> None:
    """As it is written there; it refuses the attack as well."""
    page = (ROOT / "docs" / "diffmorpher.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# convert_lora\.py\n.*?)```", page, re.DOTALL)
    unet = DiffMorpher(device="cpu")._open(str(tiny_sd), None).unet
    factors = lora.initial(unet, lora.FitSettings(rank=2))
    lora.save(factors, tmp_path / "a.safetensors")
    torch.save({"state_dict": load_file(tmp_path / "a.safetensors")}, tmp_path / "a.ckpt")
    attack.saved(tmp_path / "evil.ckpt")

    def convert(name: str) -> int:
        arguments = [str(tmp_path / name), str(tmp_path / "converted.safetensors")]
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode

    assert convert("evil.ckpt") != 0
    assert not attack.ran
    assert convert("a.ckpt") == 0
    assert draw(tiny_sd, loras=(str(tmp_path / "converted.safetensors"),)) == 1


# ---- LPIPS


@pytest.mark.parametrize("how", ["plain", "saved"])
def test_weights_for_lpips_that_hold_more_are_not_used(
    attack: Attack,
    tiny_sd: Path,
    draw: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """torchvision would unpickle them, code and all."""
    pytest.importorskip("lpips")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    weights = perceptual._weights()
    weights.parent.mkdir(parents=True)
    getattr(attack, how)(weights)
    assert draw(tiny_sd, reschedule="probe") == 1
    assert perceptual.of_pictures() is None
    assert not attack.ran


def test_weights_for_lpips_that_are_nothing_but_weights_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    weights = perceptual._weights()
    weights.parent.mkdir(parents=True)
    torch.save(alexnet(weights=None).state_dict(), weights)
    distance = perceptual.of_pictures()
    assert distance is not None
    assert distance(np.zeros((64, 64, 3), np.float32), np.ones((64, 64, 3), np.float32)) > 0


# ---- training


def test_a_training_goes_on_from_safetensors_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    from train_toon import Plan, Training

    plan = Plan(state=tmp_path, minutes=1, vae_minutes=1, unet_minutes=1, device=torch.device("cpu"))

    def learn(training: Any, steps: range) -> None:
        for step in steps:
            picture = torch.linspace(0, 1 + step, 3 * 8 * 8).reshape(1, 3, 8, 8)
            training.learn((training.network(picture) - 1).square().mean())

    def new(*, goes_on: bool) -> Any:
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        if not goes_on:
            (tmp_path / "vae.safetensors").unlink(missing_ok=True)
        return Training("vae", network, plan, rate=1e-2)

    whole, first = new(goes_on=False), new(goes_on=False)
    for training in (whole, first):
        learn(training, range(3))
        training.seconds = 12.5
    first.save()
    learn(whole, range(3, 6))
    second = new(goes_on=True)
    assert (second.step, second.seconds) == (3, 12.5)
    learn(second, range(3, 6))
    for part in ("network", "average"):
        want, found = (getattr(training, part).state_dict() for training in (whole, second))
        assert all(torch.equal(want[name], found[name]) for name in want)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
