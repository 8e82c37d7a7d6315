"""Checkpoints by name: what may be added, what is refused, what is found damaged, what a name means."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from keytween import cli, devices, doctor, models
from keytween.config import Config
from keytween_wire.errors import BadSetting, CheckpointUnusable, ModelNotFetched

UNET = "unet/diffusion_pytorch_model.safetensors"


def weights(value: int) -> bytes:
    """A safetensors file with one tensor of four bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([value] * 4)


def make_checkpoint(folder: Path, *, xl: bool = False, value: int = 1) -> Path:
    """A folder in diffusers layout whose weights are four bytes each."""
    second = ("_2",) if xl else ()
    kind = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    files = {"model_index.json": json.dumps({"_class_name": kind}).encode()}
    for part in ("unet", "vae"):
        files |= {
            f"{part}/config.json": b"{}",
            f"{part}/diffusion_pytorch_model.safetensors": weights(value),
        }
    for n in ("", *second):
        files |= {f"text_encoder{n}/config.json": b"{}", f"text_encoder{n}/model.safetensors": weights(value)}
        files |= {f"tokenizer{n}/vocab.json": b"{}", f"tokenizer{n}/merges.txt": b"a b"}
    files["scheduler/scheduler_config.json"] = b"{}"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint somewhere on the disk."""
    return make_checkpoint(tmp_path / "mine")


def listed(config: Config) -> dict[str, models.Model]:
    """The checkpoints that were added or pulled: all but ours."""
    return {name: model for name, model in models.registered(config).items() if not model.built_in}


@pytest.fixture
def run(config: Config, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Runs `keytween models ... --json`: exit code and what it printed."""

    def call(*arguments: object) -> tuple[int, Any]:
        code = cli.main(["models", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


# ---- add


def test_an_added_checkpoint_stays_where_it_is_and_its_name_means_its_folder(
    config: Config, checkpoint: Path
) -> None:
    before = sorted(checkpoint.rglob("*"))
    added = models.add(config, checkpoint, name="tigers")
    assert models.resolve(config, "tigers") == str(checkpoint)
    assert listed(config) == {"tigers": added}
    assert sorted(checkpoint.rglob("*")) == before
    assert {UNET, "model_index.json", "tokenizer/merges.txt"} <= set(added.files)


def test_without_a_name_it_gets_the_folders(config: Config, checkpoint: Path) -> None:
    assert models.add(config, checkpoint).name == "mine"


def test_a_name_is_never_given_to_two_folders(config: Config, checkpoint: Path, tmp_path: Path) -> None:
    models.add(config, checkpoint, name="a")
    with pytest.raises(BadSetting):
        models.add(config, make_checkpoint(tmp_path / "other"), name="a")
    assert models.find(config, "a").folder == checkpoint


@pytest.mark.parametrize("name", ["..", "a/b", "a b", ".hidden", "x" * 65, "-x"])
def test_a_name_that_is_no_file_name_is_refused(config: Config, checkpoint: Path, name: str) -> None:
    with pytest.raises(BadSetting):
        models.add(config, checkpoint, name=name)


def test_sdxl_needs_both_text_encoders(config: Config, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "xl", xl=True)
    models.check(folder)
    shutil.rmtree(folder / "text_encoder_2")
    with pytest.raises(CheckpointUnusable, match="text_encoder_2"):
        models.check(folder)


def _pickled(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _variant(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")


def _cut(folder: Path) -> None:
    (folder / UNET).write_bytes(weights(1)[:-1])


def _pointer(folder: Path) -> None:
    (folder / UNET).write_text("version 1\noid sha256:00\nsize 4\n")


def _other_kind(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')


def _no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _no_vae(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def _list_for_an_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[]")


def _odd_kind(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": ["StableDiffusionPipeline"]}')


def _deep_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[" * 5000)


def _deep_header(folder: Path) -> None:
    (folder / UNET).write_bytes((5000).to_bytes(8, "little") + b"[" * 5000)


def _endless_header(folder: Path) -> None:
    header = b'{"w": {"data_offsets": [0, 1e999]}}'
    (folder / UNET).write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_odd_kind, "not Stable Diffusion"),
        (_deep_index, "model_index.json"),
        (_deep_header, "cut off"),
        (_endless_header, "cut off"),
        (_pickled, "pickled"),
        (_variant, "variant"),
        (_cut, "cut off"),
        (_pointer, "cut off"),
        (_other_kind, "FluxPipeline"),
        (_no_index, "model_index.json"),
        (_list_for_an_index, "not Stable Diffusion"),
        (_no_vae, "vae"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_and_said_why(
    config: Config, checkpoint: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(checkpoint)
    with pytest.raises(CheckpointUnusable, match=said):
        models.add(config, checkpoint)
    assert listed(config) == {}


# ---- names


def test_an_existing_folder_is_itself_whatever_is_registered(
    config: Config, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.resolve(config, str(checkpoint)) == str(checkpoint)
    monkeypatch.chdir(checkpoint.parent)
    assert models.resolve(config, "mine") == str(checkpoint)


def test_a_known_name_that_was_not_pulled_says_how_to_pull_it(config: Config) -> None:
    with pytest.raises(CheckpointUnusable, match="keytween models pull sd21"):
        models.resolve(config, "sd21")


def test_an_unknown_name_lists_the_names_there_are(config: Config, checkpoint: Path) -> None:
    models.add(config, checkpoint, name="tigers")
    with pytest.raises(CheckpointUnusable, match=r"tigers, toon, sd15 \(to be pulled\)"):
        models.resolve(config, "lions")


def test_a_folder_that_is_gone_is_said_plainly(config: Config, checkpoint: Path) -> None:
    models.add(config, checkpoint)
    shutil.rmtree(checkpoint)
    with pytest.raises(CheckpointUnusable, match="is gone"):
        models.resolve(config, "mine")


def test_morph_takes_a_name_and_refuses_an_unknown_one_before_any_work(
    config: Config,
    keyframe_files: list[Path],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models.add(config, checkpoint, name="tigers")
    command = [
        "morph",
        *map(str, keyframe_files),
        "-o",
        str(tmp_path / "out"),
        "--engine",
        "diffmorpher",
        "--checkpoint",
    ]
    assert cli._diffusion(cli.build_parser().parse_args([*command, "tigers"]), config).checkpoint == str(
        checkpoint
    )
    assert cli.main([*command, "lions"]) == 4
    assert "KT-210" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- verify and remove


def test_verify_names_the_file_that_is_damaged_or_missing(
    config: Config, checkpoint: Path, run: Callable[..., tuple[int, Any]]
) -> None:
    assert run("add", checkpoint)[0] == 0
    assert run("verify") == (0, {"mine": {}, "toon": {}})
    (checkpoint / UNET).write_bytes(weights(2))
    (checkpoint / "tokenizer" / "merges.txt").unlink()
    assert run("verify", "mine") == (1, {"mine": {UNET: "damaged", "tokenizer/merges.txt": "missing"}})
    shutil.rmtree(checkpoint)
    assert run("verify") == (1, {"mine": {str(checkpoint): "gone"}, "toon": {}})


def test_verify_reads_every_byte_and_says_so(config: Config, checkpoint: Path) -> None:
    model = models.add(config, checkpoint)
    read: dict[str, int] = {}
    models.verify(model, advance=lambda file, count: read.update({file: read.get(file, 0) + count}))
    assert read == {name: digest.size for name, digest in model.files.items()}


def test_removing_an_added_checkpoint_leaves_its_folder(
    config: Config, checkpoint: Path, run: Callable[..., tuple[int, Any]]
) -> None:
    models.add(config, checkpoint)
    assert run("remove", "mine")[0] == 0
    assert (checkpoint / UNET).is_file()
    code, printed = run("remove", "mine")
    assert (code, printed["error"]["code"]) == (4, "KT-210")


def test_a_damaged_list_is_an_error_and_is_not_overwritten(config: Config, checkpoint: Path) -> None:
    models.add(config, checkpoint)
    index = models.home(config) / "models.json"
    index.write_text(index.read_text()[:-20])
    before = index.read_bytes()
    with pytest.raises(BadSetting, match="damaged"):
        models.add(config, checkpoint, name="again")
    assert index.read_bytes() == before


ENTRY = {"folder": "/nowhere", "source": "", "revision": "", "files": {"a": [1, "ab"]}}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        json.dumps({"models": {"mine": {**ENTRY, "source": 2**70}}}),
        json.dumps({"models": {"mine": {**ENTRY, "revision": None}}}),
        json.dumps({"models": {"mine": {**ENTRY, "files": {"a": [float("inf"), "ab"]}}}}),
        json.dumps({"models": {"mine": {**ENTRY, "files": {"a": "x"}}}}),
        json.dumps({"models": {"../../mine": {**ENTRY, "folder": ""}}}),
        json.dumps({"models": {"\ud800": ENTRY}}),
    ],
    ids=range(7),
)
def test_a_list_that_makes_no_sense_is_damaged(config: Config, text: str) -> None:
    models.home(config).mkdir(parents=True)
    (models.home(config) / "models.json").write_text(text)
    with pytest.raises(BadSetting, match="damaged"):
        models.registered(config)


@pytest.mark.parametrize("name", ["~nobody-of-that-name", "a" * 300, "nul\0"])
def test_a_name_that_no_disk_takes_is_no_checkpoint(config: Config, name: str) -> None:
    with pytest.raises(CheckpointUnusable, match="no such folder"):
        models.resolve(config, name)
    assert not models.Model("mine", Path(name)).there


def test_the_list_shows_what_is_there_what_is_gone_and_what_can_be_pulled(
    config: Config,
    checkpoint: Path,
    run: Callable[..., tuple[int, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    models.add(config, checkpoint)
    models.add(config, checkpoint, name="sd21")
    shutil.rmtree(checkpoint)
    states = {row["name"]: row["state"] for row in run("list")[1]}
    pullable = {"sd15": "not pulled", "sdxl": "not pulled"}
    assert states == {"mine": "gone", "sd21": "gone", "toon": "there"} | pullable
    assert cli.main(["models", "list"]) == 0
    assert "not pulled" in capsys.readouterr().out


# ---- pull, with a library in the hub's place


class Hub:
    """Repositories as `huggingface_hub` shows them, each a folder; counts what is asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.damaged: set[str] = set()

    def model_info(self, repository: str, *, revision: str | None, files_metadata: bool) -> Any:
        """What a repository holds."""
        assert files_metadata
        self.asked.append((repository, revision))
        if repository not in self.repositories:
            raise ConnectionError("refused")
        folder = self.repositories[repository]
        siblings = [
            SimpleNamespace(
                rfilename=file.relative_to(folder).as_posix(),
                size=file.stat().st_size,
                lfs=SimpleNamespace(sha256=models._sha256(file, "", models._silent))
                if file.suffix == ".safetensors"
                else None,
            )
            for file in folder.rglob("*")
            if file.is_file()
        ]
        return SimpleNamespace(sha=revision or f"newest of {repository}", siblings=siblings)

    def snapshot_download(
        self, repository: str, *, revision: str, local_dir: Path, allow_patterns: list[str], token: bool
    ) -> None:
        """Copies what is asked for, and leaves notes as the real one does."""
        assert token is False
        for name in allow_patterns:
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            data = (self.repositories[repository] / name).read_bytes()
            (local_dir / name).write_bytes(data[:-1] + b"?" if name in self.damaged else data)
        (local_dir / ".cache").mkdir(exist_ok=True)
        (local_dir / ".cache" / "notes.json").write_text("{}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Stands in for `huggingface_hub`, which is not installed here."""
    hub = Hub()
    library: Any = ModuleType("huggingface_hub")
    library.HfApi = lambda token: hub
    library.snapshot_download = hub.snapshot_download
    errors: Any = ModuleType("huggingface_hub.errors")
    errors.HTTPError = type("HTTPError", (Exception,), {})
    tools: Any = ModuleType("huggingface_hub.utils")
    tools.disable_progress_bars = lambda: None
    for module in (library, errors, tools):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"):
        monkeypatch.setenv(name, "")
    return hub


FIRST, SECOND = models.KNOWN["sd21"]


def test_pull_takes_the_plain_weights_alone_and_pins_the_commit(
    config: Config, hub: Hub, checkpoint: Path
) -> None:
    hub.repositories[FIRST] = checkpoint
    for name in (
        "v2.safetensors",
        "v2.ckpt",
        "run.py",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/flax.msgpack",
        "safety_checker/model.safetensors",
        "text_encoder/model.onnx",
    ):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(weights(3))
    model = models.pull(config, "sd21")
    assert (model.source, model.revision, model.pulled) == (FIRST, f"newest of {FIRST}", True)
    came = {p.relative_to(model.folder).as_posix() for p in model.folder.rglob("*") if p.is_file()}
    assert came == set(model.files) == set(models.members(make_checkpoint(checkpoint.parent / "plain")))
    assert models.resolve(config, "sd21") == str(config.state / "models" / "sd21")


def test_pull_goes_to_the_mirror_when_the_first_repository_is_out_of_reach(
    config: Config, hub: Hub, checkpoint: Path
) -> None:
    hub.repositories[SECOND] = checkpoint
    assert models.pull(config, "sd21").source == SECOND
    assert hub.asked == [(FIRST, None), (SECOND, None)]


def test_pull_says_every_repository_that_it_tried(
    config: Config, hub: Hub, run: Callable[..., tuple[int, Any]]
) -> None:
    code, printed = run("pull", "sd21")
    assert (code, printed["error"]["code"]) == (4, "KT-212")
    assert f"{FIRST}: no connection; {SECOND}: no connection" in printed["error"]["message"]
    assert "keytween models add PATH" in printed["error"]["next_step"]
    assert listed(config) == {}


def test_pull_again_repairs_the_pinned_commit_and_leaves_a_whole_one_alone(
    config: Config, hub: Hub, checkpoint: Path
) -> None:
    hub.repositories[SECOND] = checkpoint
    model = models.pull(config, "sd21", revision="abc")
    hub.asked.clear()
    assert models.pull(config, "sd21") == model
    assert hub.asked == []
    (model.folder / UNET).write_bytes(b"?")
    assert models.pull(config, "sd21") == model
    assert hub.asked == [(SECOND, "abc")]
    assert models.verify(model) == {}


def test_a_file_that_comes_damaged_is_not_registered(config: Config, hub: Hub, checkpoint: Path) -> None:
    hub.repositories[FIRST] = checkpoint
    hub.damaged = {UNET}
    with pytest.raises(ModelNotFetched, match="came damaged"):
        models.pull(config, "sd21")
    assert listed(config) == {}
    assert not (config.state / "models" / "sd21" / UNET).exists()


def test_what_has_no_room_is_not_begun(
    config: Config, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[FIRST] = checkpoint
    monkeypatch.setattr(models.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3))
    with pytest.raises(ModelNotFetched, match="are free"):
        models.pull(config, "sd21")
    assert list((config.state / "models" / "sd21").iterdir()) == []


def test_two_pulls_never_write_into_one_folder(config: Config, hub: Hub, checkpoint: Path) -> None:
    hub.repositories[FIRST] = checkpoint
    with models._alone(config, "sd21"), pytest.raises(ModelNotFetched, match="another program"):
        models.pull(config, "sd21")
    half = models.home(config) / "sd21" / ".cache" / "x.incomplete"
    half.parent.mkdir(parents=True)
    half.write_text("half a file")
    assert models.pull(config, "sd21").there
    assert not half.exists()


def test_removing_a_pulled_checkpoint_deletes_it(config: Config, hub: Hub, checkpoint: Path) -> None:
    hub.repositories[FIRST] = checkpoint
    folder = models.pull(config, "sd21").folder
    models.remove(config, "sd21")
    assert (folder.exists(), checkpoint.exists(), listed(config)) == (False, True, {})


def test_what_an_interrupted_pull_left_can_be_removed(config: Config) -> None:
    half = config.state / "models" / "sd15" / "unet"
    half.mkdir(parents=True)
    models.remove(config, "sd15")
    assert not half.parent.exists()


def test_pull_never_replaces_a_checkpoint_that_was_added(config: Config, hub: Hub, checkpoint: Path) -> None:
    models.add(config, checkpoint, name="sd21")
    with pytest.raises(BadSetting, match="remove that one first"):
        models.pull(config, "sd21")
    assert hub.asked == []


def test_without_the_extra_pull_says_what_to_install(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    with pytest.raises(ModelNotFetched, match="extra `diffusion`"):
        models.pull(config, "sd21")


def test_only_known_names_can_be_pulled(config: Config) -> None:
    with pytest.raises(CheckpointUnusable, match="sd15, sd21, sdxl"):
        models.pull(config, "someone/something")


# ---- ours


def test_our_checkpoint_is_there_and_its_name_means_its_folder(config: Config) -> None:
    toon = models.find(config, "toon")
    assert (toon.there, toon.pulled, toon.built_in) == (True, False, True)
    assert models.resolve(config, "toon") == str(toon.folder)
    models.check(toon.folder)


def test_every_file_of_our_checkpoint_is_as_it_was_trained(config: Config) -> None:
    toon = models.find(config, "toon")
    assert sorted(toon.files) == sorted(models.members(toon.folder))
    assert models.verify(toon) == {}
    assert toon.size < 24 << 20


def test_our_checkpoint_cannot_be_removed_and_its_name_cannot_be_taken(
    config: Config, checkpoint: Path, run: Callable[..., tuple[int, Any]]
) -> None:
    folder = models.find(config, "toon").folder
    code, printed = run("remove", "toon")
    assert (code, printed["error"]["code"]) == (4, "KT-205")
    assert folder.is_dir()
    with pytest.raises(BadSetting, match="comes with Keytween"):
        models.add(config, checkpoint, name="toon")
    assert "toon" in models.registered(config)


def test_our_checkpoint_is_listed_but_never_written_into_the_list(
    config: Config, checkpoint: Path, run: Callable[..., tuple[int, Any]]
) -> None:
    models.add(config, checkpoint)
    assert "toon" not in (models.home(config) / "models.json").read_text()
    rows = {row["name"]: row for row in run("list")[1]}
    assert (rows["toon"]["state"], rows["toon"]["source"]) == ("there", "comes with Keytween")


# ---- doctor


def test_doctor_tells_of_each_checkpoint_and_of_one_that_is_gone(config: Config, checkpoint: Path) -> None:
    models.add(config, checkpoint)
    findings = {f.subject: f for f in doctor.examine(config)}
    assert findings["checkpoint mine"].good
    assert str(checkpoint) in findings["checkpoint mine"].text
    shutil.rmtree(checkpoint)
    gone = {f.subject: f for f in doctor.examine(config)}["checkpoint mine"]
    assert (gone.good, "keytween models remove mine" in gone.next_step) == (False, True)


def test_doctor_tells_of_our_checkpoint_and_of_a_damaged_list(config: Config) -> None:
    assert next(f for f in doctor.examine(config) if f.subject == "checkpoint toon").good
    models.home(config).mkdir(parents=True)
    (models.home(config) / "models.json").write_text("?")
    assert not next(f for f in doctor.examine(config) if f.subject == "checkpoints").good


def test_doctor_names_gpus_with_driver_memory_and_what_fits(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (
        devices.Gpu("Large, Inc. GPU", "580.1", 24576, 0, 0),
        devices.Gpu("Small GPU", "580.1", 3072, 0, 0),
    )
    monkeypatch.setattr(doctor, "gpus", lambda: found)
    large, small = (f.text for f in doctor._devices(config))
    assert large == "Large, Inc. GPU, driver 580.1, 24.0 GiB: every checkpoint that can be used"
    assert "small --size" in small


def test_doctor_says_that_there_is_no_gpu(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpus", lambda: ())
    monkeypatch.setattr(doctor.platform, "system", lambda: "Linux")
    assert [f.text for f in doctor._devices(config)] == [doctor.NO_GPU]


def test_doctor_says_how_to_get_the_extra(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DIFFUSION_PACKAGES", ("numpy", "no-such-package"))
    (finding,) = doctor._diffusion(config)
    assert "no-such-package missing" in finding.text
    monkeypatch.setattr(doctor, "DIFFUSION_PACKAGES", ("numpy",))
    (finding,) = doctor._diffusion(replace(config))
    assert finding.text.startswith("numpy ")
