"""Says where the /metrics of a run are, in a file that Prometheus watches (monitoring/targets.py).

Who cannot write it trains all the same: the run says so, and nothing more comes of it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from thalweg_cluster.monitoring.targets import Target, sd_json, targets_in

VARIABLE = "THALWEG_TARGETS"
CONNECT_S = 1.0
SUFFIX = ".json"


def targets_folder(environment: Mapping[str, str]) -> Path:
    """Where the runs of this user on this machine write what there is to scrape: THALWEG_TARGETS, or a folder of the
    user's own (XDG base directories: state), so that it does not matter where a run writes the rest."""
    if given := environment.get(VARIABLE):
        return Path(given).absolute()
    state = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "thalweg", "targets").absolute()


class Announcement:
    """The file of one run."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name`: no other run on this machine has it."""
        self._folder = folder
        self._path = folder / f"{name}{SUFFIX}"

    def write(self, targets: Iterable[Target]) -> None:
        """Whole, or not at all, in place of what was there. Removes the files of runs that are gone. OSError where the
        folder cannot be made or written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{self._path.name}.part"
        part.write_text(sd_json(targets))
        part.replace(self._path)
        for other in self._folder.glob(f"*{SUFFIX}"):
            if other != self._path and _is_stale(other):
                other.unlink(missing_ok=True)

    def remove(self) -> None:
        """The run is over; nothing where there is no file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def announced(folder: Path) -> Iterator[Target]:
    """What there is to scrape, as the runs say that have written into `folder`."""
    for file in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError, ValueError):  # gone meanwhile, or none of ours
            yield from targets_in(file.read_text())


def _is_stale(file: Path) -> bool:
    """Whether nobody answers at any address in it."""
    try:
        found = targets_in(file.read_text())
    except (OSError, ValueError):  # gone meanwhile, or none of ours
        return False
    return bool(found) and not any(_answers(target.address) for target in found)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError):  # slow, or out of reach: that is no proof
        return True
    return True
