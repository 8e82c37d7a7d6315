"""Memory that runs out and numbers that run away, in each phase: in the engine, and in real workers."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from PIL import Image  # noqa: E402
from spoiling import NAN, NEVER, PHASES, install, no_numbers, seed_for, short_of_memory, spoil  # noqa: E402

from figures import Measured  # noqa: E402
from keytween.engines.auto import Auto  # noqa: E402
from keytween.engines.base import Frame, Frugal  # noqa: E402
from keytween.engines.diffmorpher import DiffMorpher, lora, memory, pipeline  # noqa: E402
from keytween.engines.diffmorpher.checkpoints import Checkpoint  # noqa: E402
from keytween.images import Picture, read  # noqa: E402
from keytween.jobs.dispatch import MOST_LEAN  # noqa: E402
from keytween.starter import DaemonProcess  # noqa: E402
from keytween_wire.client import Client  # noqa: E402
from keytween_wire.errors import ModelGaveNothing, OutOfMemory  # noqa: E402
from keytween_wire.messages import (  # noqa: E402
    Diffusion,
    FrameMade,
    JobInfo,
    JobState,
    KeyframeImage,
    MorphRequest,
)

POSITIONS = (0.2, 0.4, 0.6, 0.8)
LEAN = "Memory ran short, so this was made with less: "


@pytest.fixture
def pictures(drawings: tuple[np.ndarray, np.ndarray]) -> list[Picture]:
    return [Picture(image) for image in drawings]


@pytest.fixture
def engine() -> DiffMorpher:
    return DiffMorpher(device="cpu")


@pytest.fixture
def blobs(tmp_path: Path, drawings: tuple[np.ndarray, np.ndarray]) -> list[bytes]:
    for index, image in enumerate(drawings):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    return [(tmp_path / f"{index}.png").read_bytes() for index in range(2)]


def request(checkpoint: Path, *, seed: int = 0, engine: str = "diffmorpher", **settings: Any) -> MorphRequest:
    images = tuple(KeyframeImage(f"{i:064x}", ".png") for i in range(2))
    quick = {"steps": 3, "lora_steps": 2, "lora_rank": 2, "lora_lr": 1e-2, "reschedule": "off"}
    chosen = Diffusion(str(checkpoint), **quick | settings)
    return MorphRequest(images, (POSITIONS,), engine=engine, seed=seed, diffusion=chosen)


def made(engine: DiffMorpher, asked: MorphRequest, pictures: list[Picture]) -> list[Frame]:
    return [m for m in engine.morph(asked, pictures) if isinstance(m, Frame)]


def furthest(some: list[np.ndarray], others: list[np.ndarray]) -> int:
    """The largest difference of any value, of 255."""
    assert len(some) == len(others) == len(POSITIONS)
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(some, others, strict=True))


def pixels(frames: list[Frame]) -> list[np.ndarray]:
    return [frame.picture.pixels for frame in sorted(frames, key=lambda frame: frame.index)]


# ---- less memory, the same drawings


@pytest.mark.parametrize("lean", [1, 2])
def test_drawings_that_were_made_with_less_memory_are_the_same_and_say_so(
    checkpoint: Callable[[str], Path],
    kind: str,
    pictures: list[Picture],
    monkeypatch: pytest.MonkeyPatch,
    lean: int,
) -> None:
    """On every kind of checkpoint; few queries at a time, so that these small pictures come in parts too."""
    levels = tuple(replace(level, queries=level.queries and 20) for level in memory.LEVELS)
    asked = request(checkpoint(kind), guidance=2.0, reschedule="probe")
    usual = made(DiffMorpher(device="cpu"), asked, pictures)
    monkeypatch.setattr(memory, "LEVELS", levels)
    sparing = DiffMorpher(device="cpu", chunk=4)
    sparing.make_do(lean)
    frames = made(sparing, asked, pictures)
    difference = furthest(pixels(frames), pixels(usual))
    print(f"lean {lean}, {kind}: at most {difference} of 255 apart")
    assert difference <= 1
    assert all(LEAN not in frame.note for frame in usual)
    assert all(("one drawing", "2 drawings")[lean == 1] + " at a time" in frame.note for frame in frames)


def test_after_a_lean_request_the_next_is_made_as_usual(tiny_sd: Path, pictures: list[Picture]) -> None:
    engine, asked = DiffMorpher(device="cpu"), request(tiny_sd)
    usual = made(engine, asked, pictures)
    engine.make_do(2)
    made(engine, asked, pictures)
    engine.make_do(0)
    again = made(engine, asked, pictures)
    assert furthest(pixels(usual), pixels(again)) == 0
    assert [frame.note for frame in again] == [""] * 4


def test_a_study_that_spares_memory_keeps_less_and_learns_the_same(
    engine: DiffMorpher, tiny_sd: Path, measured: Measured
) -> None:
    model = engine._open(str(tiny_sd), None)
    kept, factors = [], []
    for level in (memory.PLENTY, memory.thrift(1)):
        model.make_do(level)
        sizes = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        latents = torch.linspace(-1, 1, 4 * 16 * 16).reshape(1, 4, 16, 16)
        fitting = lora.fit(
            model.unet,
            model.blend,
            model.schedule,
            means=latents,
            spreads=torch.zeros_like(latents),
            conditions=[model.condition("a cat", (128, 128))],
            settings=lora.FitSettings(steps=2, rank=2, learning_rate=1e-2),
        )
        with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            found = pipeline._with_progress(fitting, "", 2)
            while True:
                try:
                    next(found)
                except StopIteration as stop:
                    factors.append(stop.value[0])
                    break
        kept.append(sum(sizes.values()))
    measured(
        "4-study", f"a study keeps {kept[1] / 1e6:.1f} MB of values where it kept {kept[0] / 1e6:.1f} MB"
    )
    for name, pair in factors[0].items():
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(pair, factors[1][name], strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_networks_can_take_turns_on_the_device(
    tiny_xl: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is `cpu:0` and the others rest on `cpu`: the same memory, but the engine cannot know."""
    engine = DiffMorpher(device="cpu:0")
    engine.make_do(2)
    places: dict[int, torch.device] = {}
    plain = Checkpoint._place

    def place(model: Checkpoint, networks: Any, device: torch.device) -> None:
        networks = list(networks)
        places.update((id(network), device) for network in networks)
        plain(model, networks, device)

    monkeypatch.setattr(Checkpoint, "_place", place)
    model = engine._open(str(tiny_xl), None)
    worked = set()

    def check(network: Any, *_: Any) -> None:
        worked.add(id(network))
        there = {key for key, device in places.items() if device == torch.device("cpu:0")}
        assert id(network) in there
        assert len(there) == (2 if network in [e for _, e in model.encoders] else 1)

    encode, decode = model.vae.encode, model.vae.decode
    monkeypatch.setattr(model.vae, "encode", lambda *a, **k: (check(model.vae), encode(*a, **k))[1])
    monkeypatch.setattr(model.vae, "decode", lambda *a, **k: (check(model.vae), decode(*a, **k))[1])
    for network in model.networks:
        network.register_forward_pre_hook(check)
    assert len(made(engine, request(tiny_xl, guidance=2.0), pictures)) == 4
    assert worked == {id(network) for network in model.networks}
    engine.make_do(0)
    engine._open(str(tiny_xl), None)
    assert set(places.values()) == {torch.device("cpu:0")}


# ---- memory that runs out


@pytest.mark.parametrize(
    ("phase", "times"), [*((phase, 1) for phase in PHASES[1:]), ("drawing", 2), ("pixels", 2)]
)
def test_memory_that_runs_out_for_a_moment_costs_nothing(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], phase: str, times: int
) -> None:
    """Keyframes are studied apart and drawings made in smaller chunks, in the same process."""
    asked = request(tiny_sd)
    usual = made(DiffMorpher(device="cpu"), asked, pictures)
    spoil(engine._open(str(tiny_sd), None), phase, short_of_memory(times))
    frames = made(engine, asked, pictures)
    assert furthest(pixels(frames), pixels(usual)) <= 1
    halved = phase in ("drawing", "pixels")
    told = {1: "2 drawings at a time.", 2: "one drawing at a time."}[times]
    assert {frame.note for frame in frames} == {LEAN + told if halved else ""}


@pytest.mark.parametrize("phase", PHASES)
def test_memory_that_is_never_enough_is_named_with_its_numbers(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], phase: str
) -> None:
    doing = {
        "prompts": "while reading the prompts",
        "keyframes": "while reading the keyframes",
        "study": "while studying the keyframes",
        "inversion": "while inverting the keyframes",
        "drawing": "while drawing",
        "pixels": "while turning a drawing into pixels",
    }
    spoil(engine._open(str(tiny_sd), None), phase, short_of_memory(1000))
    with pytest.raises(
        OutOfMemory, match=rf"tween: {doing[phase]}, 2\.1 GB more were wanted and .* were free"
    ):
        made(engine, request(tiny_sd), pictures)


def test_the_processors_own_refusal_is_understood() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"while testing, 281475\.0 GB more were wanted and \d+\.\d GB of"),
        memory.naming("while testing", torch.device("cpu")),
    ):
        torch.empty(1 << 48, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), memory.naming("while testing", torch.device("cpu")):
        torch.ones(2, 3) @ torch.ones(2, 3)


_SQUEEZED = """
import resource, sys
import numpy as np, psutil
sys.path[:0] = [{here!r}, {tests!r}]
from test_memory import DiffMorpher, Picture, OutOfMemory, Path, made, request, torch
torch.set_num_threads(1)
engine, checkpoint = DiffMorpher(device="cpu"), Path({checkpoint!r})
noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
pictures = [Picture(image) for image in noise]
assert len(made(engine, request(checkpoint), pictures)) == 4
limit = psutil.Process().memory_info().vms + (48 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    made(engine, request(checkpoint, size=1024), pictures)
except OutOfMemory as error:
    print(error)
assert len(made(engine, request(checkpoint), pictures)) == 4
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_process_that_may_take_no_more_memory_says_so_and_lives(tiny_sd: Path) -> None:
    """A real limit of 48 MB more, and a picture that needs more than that."""
    here = Path(__file__).parent
    script = _SQUEEZED.format(here=str(here), tests=str(here.parent), checkpoint=str(tiny_sd))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "There is not enough memory for this tween: while " in done.stdout
    # How much was wanted stands there only where the allocator says so, and not every refusal is its own.
    assert " GB were free" in done.stdout


def test_memory_that_comes_back_is_waited_for_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WAIT_S", 0)
    growing = iter([10, 10, 30, 80, 80, 80, 80, 80])
    assert len(list(memory.coming_back(lambda: next(growing)))) == 7
    assert len(list(memory.coming_back(lambda: 50))) == memory.QUIET
    rising = iter(2**n for n in range(1000))
    assert len(list(memory.coming_back(lambda: next(rising)))) == memory.MOST_WAITS


def test_auto_passes_on_how_much_memory_there_is(tiny_sd: Path) -> None:
    auto = Auto()
    assert isinstance(auto, Frugal)
    auto.make_do(1)
    morpher: Any = auto._opened()
    assert morpher._thrift == memory.thrift(1)
    auto.make_do(0)
    assert morpher._thrift == memory.PLENTY


# ---- numbers that run away


@pytest.mark.parametrize("phase", PHASES)
def test_numbers_that_run_away_never_become_a_drawing(
    engine: DiffMorpher, tiny_sd: Path, pictures: list[Picture], phase: str, measured: Measured
) -> None:
    spoil(engine._open(str(tiny_sd), None), phase, no_numbers)
    frames: list[Frame] = []
    with pytest.raises(ModelGaveNothing, match="tiny_sd"):
        frames += made(engine, request(tiny_sd, reschedule="probe"), pictures)
    assert frames == []
    measured(
        "4-numbers", f"values that are no numbers, put into each of {len(PHASES)} phases: KT-509, no drawing"
    )


# ---- in the daemon's workers


def finish(client: Client, asked: MorphRequest, blobs: list[bytes]) -> tuple[JobInfo, list[FrameMade], Any]:
    """How a job ended, its drawings, and their pixels."""
    job_id = uuid.uuid4().hex
    named = tuple(KeyframeImage(MorphRequest.digest_of(blob), ".png") for blob in blobs)
    client.submit(job_id, replace(asked, keyframes=named), blobs)
    got = [r for r in client.events(job_id, timeout=120) if isinstance(r.message, FrameMade)]
    got.sort(key=lambda r: r.message.index)
    return client.jobs(job_id)[0], [r.message for r in got], [read(r.blobs[0]).pixels for r in got]


@pytest.fixture
def client(
    tmp_path: Path, start_daemon: Callable[..., DaemonProcess], monkeypatch: pytest.MonkeyPatch
) -> Any:
    install(tmp_path / "packages", monkeypatch)
    with Client(start_daemon().connection) as opened:
        opened.hello()
        yield opened


@pytest.mark.timeout(300)
def test_a_worker_that_runs_out_of_memory_is_followed_by_one_that_takes_less(
    client: Client,
    tiny_sd: Path,
    pictures: list[Picture],
    blobs: list[bytes],
    engine: DiffMorpher,
    measured: Measured,
) -> None:
    """In each phase of the engine; the drawings are those that plenty of memory gives, and say how."""
    furthest_apart = 0
    for phase, kind in (("study", 1), ("inversion", 1), ("drawing", 1), ("pixels", 2)):
        asked = request(tiny_sd, seed=seed_for(phase, kind), engine="spoilt")
        job, frames, found = finish(client, asked, blobs)
        assert (job.state, job.lean) == (JobState.DONE, kind), phase
        assert all(LEAN in frame.note for frame in frames)
        usual = pixels(made(engine, asked, pictures))
        furthest_apart = max(furthest_apart, furthest(found, usual))
    assert furthest_apart <= 1
    measured(
        "4-phases",
        f"in four phases of real workers: all drawn with less, at most {furthest_apart} of 255 apart",
    )


@pytest.mark.timeout(300)
def test_what_cannot_be_made_ends_with_a_name_and_without_a_drawing(
    client: Client, tiny_sd: Path, blobs: list[bytes]
) -> None:
    for phase, kind, code, lean in (("study", NEVER, "KT-510", MOST_LEAN + 1), ("pixels", NAN, "KT-509", 0)):
        asked = request(tiny_sd, seed=seed_for(phase, kind), engine="spoilt")
        job, frames, _ = finish(client, asked, blobs)
        assert job.error is not None
        assert (job.state, job.error.code, job.lean) == (JobState.FAILED, code, lean)
        assert frames == []
        if kind == NEVER:
            assert job.error.values["detail"].startswith(
                "while studying the keyframes, 2.1 GB more were wanted"
            )
