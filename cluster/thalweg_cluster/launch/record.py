"""coordinator.json: what the coordinator of a run has to know when it is started again, and where to find it.

The command writes it before it starts the coordinator; from then on only the coordinator does, before it acts on what
has changed. So a coordinator that finds an attempt in it knows that another one of the run was there before.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg_cluster.checkpoints import FileStore
from thalweg_cluster.launch.failures import Loss
from thalweg_cluster.reporting.files import RECORD
from thalweg_proto.errors import InputError, Problem


@dataclass(frozen=True, kw_only=True)
class Record:
    """address, namespace, name: of the Ray cluster, and of the coordinator in it
    started_at: when the command was given, in seconds since 1970
    first:      steps that were taken before the run
    ledger:     whether the workers write down which samples go into which step
    generation: of the attempt that goes on; before there is one, of the checkpoint that the run goes on from, or 0
    attempts:   so often servers and workers were started
    opened:     whether the servers of one of them have listened: what lies at the place of the checkpoints is then the
                run's own
    times:      so often the run has gone on after a loss
    losses:     all of them
    """

    address: str
    namespace: str
    name: str
    started_at: float
    first: int
    generation: int
    ledger: bool = False
    attempts: int = 0
    opened: bool = False
    times: int = 0
    losses: tuple[Loss, ...] = ()

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """ValueError where this is no record."""
        table = json.loads(data)
        kinds = {
            "address": str, "namespace": str, "name": str, "started_at": float, "first": int, "generation": int,
            "ledger": bool, "attempts": int, "opened": bool, "times": int, "losses": list,
        }  # fmt: skip
        if not isinstance(table, dict) or table.keys() != kinds.keys():
            raise ValueError(f"expected the keys {', '.join(kinds)}; found {data[:80]!r}")
        for key, kind in kinds.items():
            if type(table[key]) is not kind:
                raise ValueError(f"{key}: expected {kind.__name__}; found {table[key]!r:.80}")
        return cls(**table | {"losses": tuple(_loss(each) for each in table["losses"])})

    def write(self, folder: Path) -> None:
        """Whole, or not at all, also where the power fails. OSError where the storage does."""
        FileStore(folder).write(RECORD, self.to_json())


def read_record(folder: Path) -> Record:
    """Of the run in `folder`. InputError where there is none."""
    expected = "the folder of a run"
    try:
        return Record.from_json((folder / RECORD).read_bytes())
    except FileNotFoundError:
        raise InputError([Problem(str(folder), expected, f"one without {RECORD}")]) from None
    except (OSError, ValueError) as error:
        raise InputError([Problem(str(folder / RECORD), "what a run has written", str(error))]) from None


def _loss(value: Any) -> Loss:
    match value:
        case [str(kind), int(number), str(cause)]:
            return Loss(kind, number, cause)
    raise ValueError(f"losses: expected [kind, number, cause]; found {value!r:.80}")
