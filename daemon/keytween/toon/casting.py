"""Seeded toons: single drawings, pairs of one character, pairs of two, and a caption for each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keytween.toon.canvas import Colour
from keytween.toon.characters import (
    ANIMAL,
    BACKDROPS,
    CHILD,
    FIGURE,
    KINDS,
    LOOKS_RANGES,
    PATTERNS,
    POSE_RANGES,
    STRANGE_KINDS,
    STYLES,
    Looks,
    Pose,
    Toon,
)

HELD_OUT, TRAINING = 1, 2
"""The streams of random numbers: training draws from the second; pairs, tests and figures from the first."""

SKINS = ("ffe0c4", "f6c9a0", "e0a878", "b57a4e", "7f5235")
HAIRS = ("2d2430", "5b3a24", "a8562a", "e9b44c", "c9413b", "7d6fb0", "d8d3cc", "3f6f8f")
COATS = ("e4572e", "f3a712", "4f9d69", "3b7dd8", "8e6bbf", "e86a92", "2ca6a4", "c94f4f", "f2d14b")
TRIMS = ("fff4e0", "3d5a80", "ffd166", "ef8a7a", "9fd8cb", "6a4c93", "f7c6d9", "5a7d4e")
PAPERS = ("fdf6e3", "e8f1f8", "fbe7e1", "eef5e4", "f1e9f7", "d9ecf2")
GROUNDS = ("c9dfb0", "ead7b0", "bcd9e8", "f2d4d0", "ffe9a8", "cfc7e6")
NIGHTS = ("1d2440", "2b1f3a", "12343b", "3a2228")
_SHARES = (0.3, 0.2, 0.16, *(0.34 / 7,) * 7)
SPANS = {CHILD: (0.25, 0.33), ANIMAL: (0.25, 0.31), FIGURE: (0.24, 0.28)}
"""The scales of kinds that are not at home in the whole range."""
_MOVES = 0.45
"""How far a pose of a pair moves at most, in parts of each number's range."""


def sample(rng: np.random.Generator) -> Toon:
    """Any toon in any pose."""
    kind = str(rng.choice(KINDS, p=_SHARES))
    style = str(rng.choice(STYLES.get(kind, PATTERNS)))
    return _spanned(Toon(kind, style, str(rng.choice(BACKDROPS)), _looks(rng), _pose(rng)))


def training_toon(number: int) -> Toon:
    """The training set's toon of that number; none of them comes up in a pair."""
    return sample(np.random.default_rng((TRAINING, number)))


def held_out_toon(number: int) -> Toon:
    """A toon that training never drew."""
    return sample(np.random.default_rng((HELD_OUT, 0, number)))


def animation_pair(seed: int) -> tuple[Toon, Toon]:
    """One character in two poses, moderately apart; `between` knows all that lies between."""
    rng = np.random.default_rng((HELD_OUT, 1, seed))
    first = sample(rng)
    return first, _moved(first, rng)


def metamorphosis_pair(seed: int) -> tuple[Toon, Toon]:
    """Two characters that differ in kind or style, and in looks and pose, before one backdrop."""
    rng = np.random.default_rng((HELD_OUT, 2, seed))
    first = second = sample(rng)
    while (second.kind, second.style) == (first.kind, first.style):
        second = sample(rng)
    looks = replace(
        second.looks, paper=first.looks.paper, ground=first.looks.ground, horizon=first.looks.horizon
    )
    return first, replace(second, backdrop=first.backdrop, looks=looks)


def stranger_pair(seed: int) -> tuple[Toon, Toon]:
    """Two poses in a style that training never drew: other props, or known ones without outlines at night."""
    rng = np.random.default_rng((HELD_OUT, 3, seed))
    first = sample(rng)
    if seed % 2:
        kind = str(rng.choice(STRANGE_KINDS))
        first = _spanned(replace(first, kind=kind, style="plain"))
    else:
        night = replace(first.looks, line=0.0, paper=_near(rng, NIGHTS), ground=_near(rng, NIGHTS))
        first = replace(first, looks=night)
    return first, _moved(first, rng)


def caption(toon: Toon) -> str:
    """A few words: what it is, and which colour its largest part has."""
    hair = {CHILD: "hair", FIGURE: "hair"}.get(toon.kind)
    if hair:
        return f"a {toon.kind} with {toon.style} {_colour_name(toon.looks.hair)} {hair}"
    if toon.kind == ANIMAL:
        return f"a {_colour_name(toon.looks.hair)} {toon.style}"
    return f"a {toon.style} {_colour_name(toon.looks.coat)} {toon.kind}"


WORDS = ("a", "with", "hair", *dict.fromkeys((*KINDS, *PATTERNS, *(s for ss in STYLES.values() for s in ss))))
COLOUR_NAMES: dict[str, Colour] = {
    "black": (0.15, 0.13, 0.16),
    "brown": (0.45, 0.28, 0.16),
    "red": (0.82, 0.3, 0.24),
    "yellow": (0.93, 0.75, 0.3),
    "green": (0.31, 0.62, 0.41),
    "blue": (0.23, 0.47, 0.7),
    "purple": (0.53, 0.43, 0.72),
    "pink": (0.91, 0.45, 0.6),
    "grey": (0.84, 0.82, 0.8),
}


def _colour_name(colour: Colour) -> str:
    return min(
        COLOUR_NAMES, key=lambda n: sum((a - b) ** 2 for a, b in zip(COLOUR_NAMES[n], colour, strict=True))
    )


def _looks(rng: np.random.Generator) -> Looks:
    numbers = {name: float(rng.uniform(low, high)) for name, (low, high) in LOOKS_RANGES.items()}
    return Looks(
        skin=_near(rng, SKINS),
        hair=_near(rng, HAIRS),
        coat=_near(rng, COATS),
        trim=_near(rng, TRIMS),
        paper=_near(rng, PAPERS),
        ground=_near(rng, GROUNDS),
        **numbers,
    )


def _near(rng: np.random.Generator, palette: tuple[str, ...]) -> Colour:
    """A colour of the palette, a little off."""
    code = str(rng.choice(palette))
    red, green, blue = (
        float(np.clip(int(code[i : i + 2], 16) / 255 + rng.uniform(-0.035, 0.035), 0, 1)) for i in (0, 2, 4)
    )
    return red, green, blue


def _pose(rng: np.random.Generator) -> Pose:
    numbers = {name: float(rng.uniform(low, high)) for name, (low, high) in POSE_RANGES.items()}
    # Most of the time a face rests: eyes open, mouth closed, feet on the ground, upright.
    for name, share in (("lids", 0.7), ("mouth", 0.5), ("squash", 0.5)):
        numbers[name] *= float(rng.random() > share)
    numbers["tilt"] *= float(rng.random())
    return Pose(**numbers)


def _moved(toon: Toon, rng: np.random.Generator) -> Toon:
    """The toon in another pose, moderately far away."""
    steps = {name: _MOVES * (high - low) for name, (low, high) in POSE_RANGES.items()}
    moved = {
        name: float(np.clip(getattr(toon.pose, name) + step * rng.uniform(-1, 1), *POSE_RANGES[name]))
        for name, step in steps.items()
    }
    moved["scale"] = float(np.clip(moved["scale"], *SPANS.get(toon.kind, POSE_RANGES["scale"])))
    return replace(toon, pose=Pose(**moved))


def _spanned(toon: Toon) -> Toon:
    """The toon with its scale spread over its kind's own span: no face fills the sheet, no figure is lost."""
    low, high = POSE_RANGES["scale"]
    small, large = SPANS.get(toon.kind, (low, high))
    scale = small + (toon.pose.scale - low) / (high - low) * (large - small)
    return replace(toon, pose=replace(toon.pose, scale=scale))
