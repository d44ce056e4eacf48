"""CPUs and GPUs, of a node or free on a cluster, and how many workers they take. Knows nothing of Ray.

A worker needs a CPU, and where the job says so a GPU or a share of one. A share lies on one GPU: on two of them there
is no room for three workers of 0.6 each.
"""

from __future__ import annotations

from typing import NamedTuple

DIGITS = 4
UNITS = 10_000
"""Ray counts shares of a GPU in ten-thousandths."""


class Resources(NamedTuple):
    cpus: float
    gpus: float = 0.0

    @classmethod
    def of(cls, ray: dict[str, float]) -> Resources:
        """As Ray names them."""
        return cls(ray.get("CPU", 0.0), ray.get("GPU", 0.0))

    def workers(self, gpus_per_worker: float) -> int:
        """How many workers they take; of several GPUs that are free in part as if one had all of that."""
        return min(int(self.cpus), on_gpus(self.gpus, gpus_per_worker)) if gpus_per_worker else int(self.cpus)


def on_gpus(gpus: float, gpus_per_worker: float) -> int:
    """How many workers so many GPUs take; `gpus_per_worker` is above 0, and at most 1."""
    whole = int(gpus)
    return whole * _shares(1.0, gpus_per_worker) + _shares(gpus - whole, gpus_per_worker)


def gpus_for(workers: int, gpus_per_worker: float) -> float:
    """Of so many workers, together."""
    return round(workers * gpus_per_worker, DIGITS)


def counted(count: float, what: str) -> str:
    """e.g. "4 CPUs", "1 GPU", "0.5 GPUs"."""
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def _shares(of: float, share: float) -> int:
    return _units(of) // max(1, _units(share))  # Ray gives no smaller share


def _units(gpus: float) -> int:
    return round(gpus * UNITS)
