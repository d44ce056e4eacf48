"""Grants to workers that come and go, on one of two hosts, without sockets: what the flow has its host do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from thalweg_cluster.checkpoints import TrainingState
from thalweg_cluster.hosts.in_hand import InHand, Part
from thalweg_cluster.hosts.spec import Topology
from thalweg_cluster.hosts.stale_flow import StaleFlow
from thalweg_cluster.step import StepSpec
from thalweg_proto.blocks import Shards
from thalweg_proto.formats import make_format
from thalweg_proto.messages import Work
from thalweg_proto.shared_memory import CHUNK
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage

SIZE = 2 * CHUNK


class Workers:
    """What the workers of a host are told, in words."""

    def __init__(self, did: list[str]) -> None:
        self.in_hand = InHand()
        self._did = did

    def send(self, rank: int, work: Work) -> None:
        self.in_hand.give(rank, [Part(work.step, work.begin)], work.version, 0.0)
        self._did.append(f"worker {rank}: {work.step}, {work.begin} to gradient {work.gradient}")


class Host:
    """What host 1, with workers 1 and 2, is made to do, in words."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.spec = SimpleNamespace(
            host=1,
            topology=Topology(ranks=(range(1), range(1, 3)), owns=(True, True)),
            step=StepSpec(microbatches=4, batch_size=4, steps=9, rule="sgd", schedule={"name": "constant"}),
        )
        self.spec.step.schedule.update(learning_rate=0.1, warmup_steps=0)
        self.ranks, self.size = range(1, 3), SIZE
        self.shards = Shards.of(SIZE, [True, True])
        self.gradient_format = self.parameters_format = make_format("float32")
        self.workers = Workers(self.did)
        self.flow = StaleFlow(self, TrainingState.new(np.zeros(SIZE, np.float32)))  # type: ignore[arg-type]
        for rank in self.ranks:
            self.workers.in_hand.joined(rank)

    def refresh(self, rank: int) -> None:
        self.did.append(f"refresh {rank}")

    def to_lead(self, message: HostMessage) -> None:
        kind = message.WhichOneof("kind")
        self.did.append(f"{kind} {getattr(message, kind).rank}")

    def after(self, call: Any) -> list[str]:
        """What it did meanwhile."""
        self.did.clear()
        call()
        return list(self.did)

    def granted(self, rank: int, step: int, microbatch: int) -> list[str]:
        unit = LeadMessage.Granted(rank=rank, step=step, microbatch=microbatch, version=0)
        return self.after(lambda: self.flow.on_lead(LeadMessage(granted=unit)))

    def refreshed(self, rank: int) -> list[str]:
        return self.after(lambda: self.flow.on_refreshed(rank))

    def gone(self, rank: int) -> list[str]:
        lost = [piece for piece in self.workers.in_hand.gone(rank) if isinstance(piece, Part)]
        return self.after(lambda: self.flow.on_gone(rank, lost))


def test_a_unit_is_computed_once_what_others_own_was_fetched():
    """Worker 2's gradient is the second one of this host."""
    host = Host()
    assert host.granted(2, 0, 3) == ["refresh 2"]
    assert host.refreshed(2) == ["worker 2: 0, 3 to gradient 1"]


def test_the_unit_of_a_worker_that_is_gone_goes_back():
    """Whether it was computing already or not; of one that had none nothing does."""
    host = Host()
    host.granted(1, 0, 0)
    host.refreshed(1)
    assert host.gone(1) == ["returned 1"]
    host.granted(2, 0, 1)
    assert host.gone(2) == ["returned 2"]
    host.workers.in_hand.joined(2)
    assert host.gone(2) == []


def test_a_grant_to_one_who_is_gone_goes_back():
    """It crossed the word that he is."""
    host = Host()
    host.gone(1)
    assert host.granted(1, 0, 0) == ["returned 1"]


def test_what_was_fetched_for_one_who_is_gone_is_not_taken_for_the_next_one():
    """It may be older than the next one's grant: he waits for what is fetched for him."""
    host = Host()
    host.granted(1, 0, 0)
    host.gone(1)
    host.workers.in_hand.joined(1)
    assert host.granted(1, 2, 0) == ["refresh 1"]
    assert host.refreshed(1) == []
    assert host.refreshed(1) == ["worker 1: 2, 0 to gradient 0"]
