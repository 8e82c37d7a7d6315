"""What the diffusion tests share: tiny checkpoints, the oracle of each, two drawings, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from drawings import Picture
    from oracle import Oracle

KINDS = ("sd", "v", "xl")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors are quicker on one thread, and the same every time."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of checkpoint in turn, for `checkpoint` and `oracle_of`."""
    return request.param


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a kind ("sd", "v", "xl"), made once."""
    pytest.importorskip("diffusers")
    import checkpoints

    makers = {"sd": checkpoints.make_sd, "v": checkpoints.make_v, "xl": checkpoints.make_xl}
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = makers[kind](tmp_path_factory.mktemp(f"tiny_{kind}"))
        return made[kind]

    return get


@pytest.fixture(scope="session")
def tiny_sd(checkpoint: Callable[[str], Path]) -> Path:
    """A tiny checkpoint that predicts the noise."""
    return checkpoint("sd")


@pytest.fixture(scope="session")
def tiny_v(checkpoint: Callable[[str], Path]) -> Path:
    """A tiny checkpoint that predicts v."""
    return checkpoint("v")


@pytest.fixture(scope="session")
def tiny_xl(checkpoint: Callable[[str], Path]) -> Path:
    """A tiny checkpoint in the shape of SDXL."""
    return checkpoint("xl")


@pytest.fixture(scope="session")
def oracle_of(checkpoint: Callable[[str], Path]) -> Callable[[str], Oracle]:
    """The oracle over the tiny checkpoint of a kind, loaded once."""
    from oracle import Oracle

    loaded: dict[str, Oracle] = {}

    def get(kind: str) -> Oracle:
        if kind not in loaded:
            loaded[kind] = Oracle(checkpoint(kind))
        return loaded[kind]

    return get


@pytest.fixture(scope="session")
def drawings() -> tuple[Picture, Picture]:
    """Two drawings of 64 by 64."""
    pytest.importorskip("numpy")
    from drawings import draw_pair

    return draw_pair()
