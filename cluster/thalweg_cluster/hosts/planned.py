"""Faults that are planned at messages between hosts: lost, sent or heard twice, late, or with a bit flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from thalweg_proto.faults import CORRUPT, DOUBLE, DROP, Faults
from thalweg_proto.v1 import parameter_server_pb2 as pb
from thalweg_proto.v1.coordination_pb2 import HostMessage, LeadMessage
from thalweg_proto.wire import sealed_number, unpack_block

T = TypeVar("T")
StepOf = Callable[[Any], int | None]


def sent(faults: Faults, point: str, messages: Iterator[T], step_of: StepOf) -> Iterator[T]:
    """What goes out of the messages of a stream; `messages` itself where nothing is planned at the point."""
    if not faults.plans(point):
        return messages
    return (each for message in messages for each in _instead(faults, point, message, step_of))


def heard(faults: Faults, point: str, hear: Callable[[T], object], step_of: StepOf) -> Callable[[T], object]:
    """Takes in a message; `hear` itself where nothing is planned at the point."""
    if not faults.plans(point):
        return hear

    def hear_planned(message: T) -> None:
        for each in _instead(faults, point, message, step_of):
            hear(each)

    return hear_planned


def _instead(faults: Faults, point: str, message: Any, step_of: StepOf) -> list[Any]:
    due = faults.at(point, step_of(message))
    if due.do == CORRUPT:
        return [due.spoil(message)]
    return [message] * {DROP: 0, DOUBLE: 2}.get(due.do, 1)


def step_of_nothing(message: bytes) -> int | None:
    """Of what only says how far a stream is."""
    return None


def step_of_block(message: bytes) -> int | None:
    """Of a gradient; of parameters, the version."""
    return unpack_block(message)[0].step if sealed_number(message) else None


def step_of_reply(message: bytes) -> int | None:
    """Of an answer to a push."""
    return pb.PushReply.FromString(message).step if sealed_number(message) else None


def step_of_word(kind: type[HostMessage] | type[LeadMessage], message: bytes) -> int | None:
    """Of what a host and the lead say to each other, where it belongs to a step."""
    if not sealed_number(message):
        return None
    word = kind.FromString(message)
    return getattr(getattr(word, word.WhichOneof("kind") or "beat"), "step", None)
