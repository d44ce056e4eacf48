"""From measurements to ratios and verdicts. Pure.

The machine is noisy, and its noise lasts longer than a run. So a ratio is taken within one round, where the two systems
ran one after the other, and the figure is the median of the rounds' ratios: what slows both alike cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of one system.

    network:       the name of what is trained
    samples_per_s: over the wall time of the counted steps, all workers together
    step_p50_ms:   median step
    phase_ms:      mean time of each phase of a step, where the system tells
    round:         counts the repeats from 0
    """

    network: str
    system: str
    samples_per_s: float
    step_p50_ms: float
    phase_ms: Mapping[str, float] = field(default_factory=dict)
    round: int = 0


def measurement(network: str, system: str, figures: Mapping[str, Any]) -> Measurement:
    """From the figures of a rival or a summary."""
    return Measurement(
        network=network,
        system=system,
        samples_per_s=figures["samples_per_s"],
        step_p50_ms=figures["step_ms"]["p50"],
        phase_ms=figures.get("phase_ms", {}),
    )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A ratio to form: `over` / (`times` x `under`), and network -> the least that it has to reach."""

    name: str
    over: str
    under: str
    times: int = 1
    targets: Mapping[str, float] = field(default_factory=dict)


RULES = (
    Rule(
        name="Thalweg / DDP",
        over="thalweg",
        under="ddp",
        targets={"H 128": 4.0, "H 512": 1.7, "H 1024": 1.25, "H 4096": 1.4},
    ),
    Rule(
        name="Thalweg / Ray example",
        over="thalweg",
        under="ray",
        targets={"H 128": 15.0, "H 512": 4.0, "H 1024": 3.0, "H 4096": 2.0},
    ),
    Rule(name="Thalweg / Ray, NumPy weights", over="thalweg", under="ray-numpy"),
    Rule(
        name="Thalweg / (2 x plain loop)",
        over="thalweg",
        under="plain",
        times=2,
        targets={"H 128": 0.80, "H 512": 0.90, "H 1024": 0.90, "H 4096": 0.90},
    ),
    Rule(name="Thalweg / 2 plain loops at once", over="thalweg", under="plain-2"),
    Rule(name="Thalweg / (2 x Thalweg, 1 worker)", over="thalweg", under="thalweg-1", times=2),
)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A rule's outcome with one network; `rounds` holds one ratio for each round and is not empty."""

    name: str
    network: str
    rounds: tuple[float, ...]
    target: float | None = None

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def reached(self) -> bool | None:
        """Whether the median is at least the target; None without a target."""
        return None if self.target is None else self.median >= self.target


def ratios(measurements: Iterable[Measurement], rules: Iterable[Rule] = RULES) -> list[Ratio]:
    """One Ratio for each network and rule of which both systems ran in some round; networks in the order of their runs.

    A round that lacks one of the two systems is left out of that ratio.
    """
    speed = {(m.network, m.system, m.round): m.samples_per_s for m in measurements}
    networks = list(dict.fromkeys(network for network, _, _ in speed))
    rounds = sorted({r for _, _, r in speed})
    found = []
    for network in networks:
        for rule in rules:
            pairs = [(speed.get((network, rule.over, r)), speed.get((network, rule.under, r))) for r in rounds]
            values = tuple(over / (rule.times * under) for over, under in pairs if over and under)
            if values:
                found.append(Ratio(name=rule.name, network=network, rounds=values, target=rule.targets.get(network)))
    return found


def missed(found: Iterable[Ratio]) -> list[Ratio]:
    """The ratios that have a target and do not reach it."""
    return [ratio for ratio in found if ratio.reached is False]


def turn(systems: tuple[str, ...], round_index: int) -> tuple[str, ...]:
    """The order in a round: forwards and backwards in turn, so that a steady drift favours no system."""
    return systems if round_index % 2 == 0 else systems[::-1]
