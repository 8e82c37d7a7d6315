"""Who takes part in the bench of morphs: engines, and `diffmorpher` with one switch after the other on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from keytween import engines
from keytween_wire.errors import BadSetting
from keytween_wire.messages import Diffusion

OFF, LORA, REFINE, ATTENTION, ADAIN = "off", "lora", "refine", "attention", "adain"
RESCHEDULE, FULL, PUBLISHED = "reschedule", "full", "published"
USUAL = (OFF, LORA, REFINE, ATTENTION, ADAIN, RESCHEDULE, FULL)
SWITCHES = (*USUAL, PUBLISHED)
"""The rungs: each has the switches of those before it on. `published` is the paper's own program."""
ENGINES = (engines.DISSOLVE.name, engines.FLOW.name, engines.DIFFMORPHER.name)


@dataclass(frozen=True, slots=True)
class Contender:
    """An engine under the name that tables call it by, with its settings."""

    name: str
    engine: str
    diffusion: Diffusion = field(default_factory=Diffusion)

    @property
    def diffuses(self) -> bool:
        """Whether the settings matter to it."""
        return self.engine == engines.DIFFMORPHER.name


def rung(switch: str, whole: Diffusion) -> Diffusion:
    """The settings of a rung; `whole` has every switch on.

    `off` is plain DDIM inversion and slerp; `refine` refines the inversion, which is not the paper's. Up to
    `reschedule` the keyframes are drawn by the network, as all between them; `full` gives them back their
    own detail, as the engine does for users. `published` paces from a first rendering of all drawings and
    leaves the detail off.
    """
    if switch == FULL:
        return whole
    if switch == PUBLISHED:
        return replace(whole, refinements=0, reschedule="full", pace_rounds=1, keep_ends=False)
    on = USUAL[: USUAL.index(switch) + 1]
    return replace(
        whole,
        use_lora=LORA in on,
        refinements=whole.refinements if REFINE in on else 0,
        attention=whole.attention if ATTENTION in on else 0.0,
        adain=ADAIN in on,
        reschedule=whole.reschedule if RESCHEDULE in on else "off",
        keep_ends=False,
    )


def contenders(names: Sequence[str], switches: Sequence[str], whole: Diffusion) -> tuple[Contender, ...]:
    """Everybody who takes part, in order; raises UnknownEngine, or BadSetting for a switch."""
    unknown = next((switch for switch in switches if switch not in SWITCHES), None)
    if unknown is not None:
        raise BadSetting(name="switches", value=unknown, detail=f"choose from {', '.join(SWITCHES)}")
    found: list[Contender] = []
    for name in dict.fromkeys(engines.choose(name)[0] for name in names or ENGINES):
        if name == engines.DIFFMORPHER.name:
            rungs = dict.fromkeys(switches or USUAL)
            found += [Contender(_title(switch), name, rung(switch, whole)) for switch in rungs]
        else:
            found.append(Contender(name, name))
    return tuple(found)


def _title(switch: str) -> str:
    """How tables call a rung: those that only add a switch with a plus."""
    return switch if switch in (OFF, FULL, PUBLISHED) else f"+{switch}"
