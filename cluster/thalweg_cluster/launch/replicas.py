"""The memories of a run's replicas: a Ray actor on each of its hosts, that holds files and does nothing else.

They belong to nobody (detached) and have names that follow from the run's: so they outlive each attempt, and a
coordinator that takes the place of one that died finds them. The coordinator ends them with the run. Where none does
any more, since its host is gone, a memory ends itself once nobody has asked for anything for IDLE_S.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thalweg_cluster.checkpoints import ReplicaMemory, ReplicaStore
from thalweg_proto.errors import InputError, Problem
from thalweg_proto.shared_memory import FLOAT_BYTES, memory_available

CALL_S = 5.0
"""How long a memory may take to answer when a run goes on; then it counts as lost."""
PUT_S = 30.0
"""How long it may take for a piece. Nobody waits for that but the next replica."""
START_S = 60.0
"""How long Ray may take to start one."""
IDLE_S = 3600.0
LOOK_S = 60.0


class MemoryActor(ReplicaMemory):
    """As Ray runs it."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_s = monotonic()
        threading.Thread(target=self._end_when_idle, daemon=True, name="thalweg-memory").start()

    def put(self, name: str, begin: int, size: int, piece: bytes) -> None:
        self._asked_s = monotonic()
        super().put(name, begin, size, piece)

    def names(self) -> list[str]:
        self._asked_s = monotonic()
        return super().names()

    def _end_when_idle(self) -> None:
        while monotonic() - self._asked_s < IDLE_S:
            sleep(LOOK_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def bytes_available(self) -> int:
        """Of the host's memory."""
        return memory_available(Path("/proc/meminfo").read_text())


class RemoteMemory:
    """A memory in another process, of which `host` is the address."""

    def __init__(self, actor: Any, host: str) -> None:
        self._actor = actor
        self.host = host

    def put(self, name: str, begin: int, size: int, piece: bytes) -> None:
        self._call("put", name, begin, size, piece, timeout_s=PUT_S)

    def get(self, name: str, begin: int) -> tuple[bytes, int]:
        return cast(tuple[bytes, int], self._call("get", name, begin))

    def names(self) -> list[str]:
        return cast(list[str], self._call("names"))

    def remove(self, name: str) -> None:
        self._call("remove", name)

    def names_later(self) -> Any:
        """A reference to the names."""
        return self._actor.names.remote()

    def bytes_available_later(self) -> Any:
        """A reference to how much memory the host has."""
        return self._actor.bytes_available.remote()

    def _call(self, method: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=timeout_s)
        except RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise error.cause from None
            raise OSError(f"the memory on {self.host} failed: {error}") from None
        except GetTimeoutError:
            raise OSError(f"the memory on {self.host} did not answer within {timeout_s:g} s") from None
        except RayError as error:
            raise OSError(f"the memory on {self.host} is lost: {str(error).strip().splitlines()[0]}") from None


class RunReplicas:
    """The memories of one run, in its coordinator."""

    def __init__(self, run: str, namespace: str) -> None:
        """run: name of its coordinator, which no other run of the cluster has; namespace: of all names of ours"""
        self._run = run
        self._namespace = namespace
        self._actors: dict[str, Any] = {}  # by node
        self._memories: list[RemoteMemory] = []
        self._checked = False

    def store(self) -> ReplicaStore | None:
        """What the hosts of the newest attempt hold that answer within CALL_S; None where none does."""
        asked = {memory.names_later(): memory for memory in self._memories}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=CALL_S) if asked else ([], [])
        living = [memory for ref, memory in asked.items() if ref in answered]
        return ReplicaStore(living) if living else None

    def adopt(self) -> None:
        """Takes over what a coordinator of the same run has left that died."""
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray gives it no type
        for node in nodes:
            with contextlib.suppress(ValueError):  # there is none of that name
                name = self._name(node["NodeID"])
                self._actors[node["NodeID"]] = actor = ray.get_actor(name, namespace=self._namespace)
                self._memories.append(RemoteMemory(actor, node["NodeManagerAddress"]))

    def _name(self, node: str) -> str:
        return f"{self._run}-memory-{node}"

    def on(self, nodes: Sequence[str], addresses: Mapping[str, str]) -> list[RemoteMemory]:
        """One on each of these nodes, in order; those that are there stay, with what they hold, those elsewhere end.

        addresses: of the nodes
        """
        for node in set(self._actors).difference(nodes):
            self._end(node)
        new_memory: Any = ray.remote(MemoryActor)
        for node in nodes:
            if node not in self._actors:
                where = NodeAffinitySchedulingStrategy(node, soft=False)
                # Where its process dies it is started again, empty; where its node is gone it ends.
                options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": where}
                owner = {"name": self._name(node), "namespace": self._namespace, "lifetime": "detached"}
                self._actors[node] = new_memory.options(**options, **owner).remote()
        self._memories = [RemoteMemory(self._actors[node], addresses[node]) for node in nodes]
        return self._memories

    def check_room(self, needed: int) -> None:
        """InputError where a host has less than `needed` bytes of memory for replicas, before any is there: a run that
        goes on is not refused for what it holds itself. A memory that does not start is none that has too little: its
        replicas fail, and that is told."""
        if self._checked:
            return
        self._checked = True
        asked = {memory.host: memory.bytes_available_later() for memory in self._memories}
        available = {}
        for host, answer in asked.items():
            with contextlib.suppress(RayError):
                available[host] = ray.get(answer, timeout=START_S)
        problems = too_little(available, needed)
        if problems:
            raise InputError(problems)

    def close(self) -> None:
        """Ends all of them."""
        for node in list(self._actors):
            self._end(node)
        self._memories = []

    def _end(self, node: str) -> None:
        with contextlib.suppress(ValueError):
            ray.kill(self._actors.pop(node))


def bytes_needed(size: int, owners: int, slots: int) -> int:
    """Of memory on one host for replicas: two of them at a time, each with the shards of two hosts.

    size:   elements of the flat vector
    owners: hosts with a shard
    slots:  arrays of the rule's state
    """
    shard = -(-size // owners) * (1 + slots) * FLOAT_BYTES
    return 2 * min(2, owners) * shard


def too_little(available: Mapping[str, int], needed: int) -> list[Problem]:
    """`available`: bytes of memory by the address of a host; `needed`: of each for replicas."""
    expected = f"{needed:,} bytes of memory on each host for replicas of the state"
    hint = "0 makes none: then a lost server costs the steps since the newest checkpoint"
    return [
        Problem("checkpoint.replicate_every_s", expected, f"{there:,} bytes available on {host}", hint)
        for host, there in available.items()
        if there < needed
    ]
