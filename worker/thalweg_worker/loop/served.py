"""A step where the server of the host says what to compute: sample, forward, backward, push.

Rules:
  - With `sync` the parameters are read where they lie, each as soon as it is there, and each part of the gradient is
    pushed as soon as it is final: what arrives and what leaves overlaps with the computation.
  - With `ssp` and `async` the parameters change at any time; the worker computes on a copy that it takes first.
  - With local steps it takes several steps on a copy, and pushes what they changed.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.layout import Layout
from thalweg_proto.messages import Begin, Evaluate, Finish, StepRecord, Stop, Work
from thalweg_proto.shared_memory import FLOAT_BYTES
from thalweg_proto.shares import share
from thalweg_worker.batches import BatchSource
from thalweg_worker.datasets import Samples
from thalweg_worker.engines.protocol import GradientEngine
from thalweg_worker.exchange.served import ServedExchange, StoppedError
from thalweg_worker.ledger import Ledger
from thalweg_worker.loop.clipping import shorten
from thalweg_worker.loop.evaluation import evaluate
from thalweg_worker.loop.local_steps import LocalUpdate, NewLocalUpdate
from thalweg_worker.sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class ServedLoop:
    """How a served worker computes.

    copies:           it computes on a copy of the parameters (ssp, async)
    steps:            of the whole job
    local_steps:      with more than 1: so many steps make a round, and `new_local_update` makes the rule for them
    clip_norm:        with copies and local steps: the worker shortens its own gradient to this norm; 0: it does not
    workers:          among which the microbatches of a local step are dealt out, and the change of a round is averaged
    """

    copies: bool
    steps: int
    local_steps: int = 1
    workers: int = 1
    new_local_update: NewLocalUpdate | None = None
    clip_norm: float = 0.0


def run(
    exchange: ServedExchange,
    engine: GradientEngine,
    sampler: Sampler,
    training: Samples,
    held_out: Samples | None,
    how: ServedLoop,
    ledger: Ledger | None = None,
) -> None:
    """Computes what the server asks for until there is nothing more to do."""
    kind = _Local if how.local_steps > 1 else _Copying if how.copies else _InPlace
    with np.errstate(all="ignore"):  # what is not finite is found at the update
        kind(exchange, engine, sampler, training, held_out, how, ledger).run()


class _Loop:
    """What all served loops share; `_compute` differs."""

    def __init__(
        self,
        exchange: ServedExchange,
        engine: GradientEngine,
        sampler: Sampler,
        training: Samples,
        held_out: Samples | None,
        how: ServedLoop,
        ledger: Ledger | None,
    ) -> None:
        self._exchange = exchange
        self._engine = engine
        self._sampler = sampler
        self._held_out = held_out
        self._how = how
        self._layout = exchange.connection.layout
        self._source = BatchSource(training, sampler, range(sampler.microbatches), ledger)
        self._sample_s = self._compute_s = self._push_s = 0.0
        self._bound: dict[tuple[int, ...], Callable[[], float]] = {}
        self._pushed: int | None = None  # the step of the newest gradient that was announced whole

    def run(self) -> None:
        with contextlib.suppress(StoppedError):
            self._work()
        self._exchange.connection.leave()

    def _work(self) -> None:
        exchange = self._exchange
        mark = perf_counter()
        while True:
            message = exchange.receive()
            if isinstance(message, Begin):
                mark = perf_counter()
            elif isinstance(message, Evaluate):
                self._evaluate(message)
                mark = perf_counter()
            elif isinstance(message, Work):
                if self._pushed is not None and self._pushed < message.step:
                    exchange.faults.at("push.acknowledged", self._pushed)
                self._sample_s = self._compute_s = self._push_s = 0.0
                self._compute(message)
                mark = self._tell(message, mark)
            elif isinstance(message, Finish | Stop):
                break

    def _compute(self, work: Work) -> None:
        raise NotImplementedError

    def _evaluate(self, message: Evaluate) -> None:
        assert self._held_out is not None  # else nothing would be evaluated
        exchange, version = self._exchange, message.version
        if not self._how.copies:
            exchange.wait(version, self._layout.size)
        chunks = range(message.begin, message.end)
        evaluate(exchange.connection, self._engine, exchange.parameters(version), self._held_out, version, chunks)

    def _tell(self, work: Work, begin: float) -> float:
        """Tells the server how a step went that began at `begin`; returns when it ended."""
        end = perf_counter()
        waited_s = end - begin - self._sample_s - self._compute_s - self._push_s
        self._exchange.connection.tell(
            StepRecord(
                rank=self._exchange.connection.rank,
                microbatches=work.end - work.begin,
                step=work.step,
                loss=np.nan,
                gradient_norm=np.nan,
                published_s=end,
                sample_s=self._sample_s,
                compute_s=self._compute_s,
                push_s=self._push_s,
                wait_s=max(0.0, waited_s),
                apply_s=0.0,
            )
        )
        return end

    def _take(self, step: int, microbatch: int) -> None:
        begin = perf_counter()
        self._source.take(step, microbatch)
        self._sample_s += perf_counter() - begin

    def _differentiate(self, gradient: Callable[[], float]) -> float:
        """The loss; what it waited and pushed meanwhile does not count as computing."""
        exchange = self._exchange
        begin, others = perf_counter(), exchange.waited_s + self._push_s
        loss = gradient()
        self._compute_s += perf_counter() - begin - (exchange.waited_s + self._push_s - others)
        return loss

    def _push(self, step: int, part: int, begin: int, loss: float) -> None:
        whole = begin == 0
        if whole:
            self._exchange.faults.at("push.before", step)
        mark = perf_counter()
        self._exchange.final(step, part, begin, loss)
        self._push_s += perf_counter() - mark
        if whole:
            self._exchange.faults.at("push.after", step)
            self._pushed = step


class _InPlace(_Loop):
    """sync: on the parameters where they lie."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._begins = {tensor.name: tensor.begin for tensor in self._layout.tensors}
        self._now = (0, 0)  # step and part of the gradient that is computed
        self._told = 0  # its elements from here on were said to be final
        self._apart: NDArray[np.float32] | None = None  # a gradient whose end must not be written where it goes
        self._rest: NDArray[np.float32] | None = None  # where the begin of that goes

    def _compute(self, work: Work) -> None:
        size, exchange = self._layout.size, self._exchange
        self._source.begin(work.step, range(work.begin, work.end))
        for index, part in enumerate(range(work.begin, work.end), work.gradient):
            if exchange.superseded(work):
                exchange.leave_part(work.step, part)
                continue
            self._now, self._told = (work.step, part), work.until
            self._take(work.step, part)
            gradient = self._gradient(work, index, part) if work.until == size else self._again(work, index, part)
            try:
                loss = self._differentiate(gradient)
            except Exception:
                # On parameters of several versions any model may fail; what it came to is not asked for.
                if not exchange.superseded(work):
                    raise
                self._bound.clear()
                self._rest = None
                exchange.leave_part(work.step, part)
                continue
            self._bring(0)
            self._push(work.step, part, 0, loss)
            self._rest = None

    def _gradient(self, work: Work, index: int, part: int) -> Callable[[], float]:
        key = (work.version % self._exchange.versions, part, index)
        if key not in self._bound:
            self._bound[key] = self._bind(work, part, self._exchange.gradient(index))
        return self._bound[key]

    def _again(self, work: Work, index: int, part: int) -> Callable[[], float]:
        """A gradient that another one began, who is gone: computed apart, since the server may have summed its end."""
        if self._apart is None:
            # A mapping, as where the others go: the same alignment, whatever an engine makes of that.
            self._apart = np.frombuffer(mmap.mmap(-1, self._layout.size * FLOAT_BYTES), dtype=np.float32)
        self._rest = self._exchange.gradient(index)
        return self._bind(work, part, self._apart)

    def _bind(self, work: Work, part: int, out: NDArray[np.float32]) -> Callable[[], float]:
        return self._engine.gradient(
            self._exchange.parameters(work.version),
            self._source.batch(part),
            weight=self._sampler.size(part) / self._sampler.batch_size,
            out=self._layout.views(out),
            before_read=self._before_read,
            on_ready=_Suffix(self._layout, self._final).ready,
        )

    def _bring(self, begin: int) -> None:
        """Puts what is final from `begin` on of a gradient that was computed apart where it goes."""
        if self._rest is not None and self._apart is not None:
            self._rest[begin : self._told] = self._apart[begin : self._told]

    def _before_read(self, name: str, end: int) -> None:
        self._exchange.wait(self._now[0], self._begins[name] + end)

    def _final(self, begin: int) -> None:
        if 0 < begin < self._told:
            self._bring(begin)
            self._told = begin
            self._push(*self._now, begin, np.nan)


class _Copying(_Loop):
    """ssp, async: on a copy of the parameters, which change at any time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._copy = np.empty(self._layout.size, dtype=np.float32)
        self._averaged = self._layout.averaged
        self._unit: int | None = None  # the one before, counted through all steps

    def _compute(self, work: Work) -> None:
        mark = perf_counter()
        np.copyto(self._copy, self._exchange.vector(work.version))
        self._push_s += perf_counter() - mark
        part = work.begin
        self._take(work.step, part)
        self._ahead(work.step, part)
        gradient = self._exchange.gradient(work.gradient)
        loss = self._differentiate(self._gradient(part, gradient))
        shorten(gradient, self._how.clip_norm, self._averaged)
        # What is averaged moves by the microbatch's share of the batch. By more, many workers that all start from the
        # same old values would carry it past what they mean, and a variance below zero.
        for begin, end in self._averaged:
            gradient[begin:end] *= np.float32(self._sampler.size(part) / self._sampler.batch_size)
        self._push(work.step, part, 0, loss)

    def _ahead(self, step: int, part: int) -> None:
        """Which unit comes next is up to who is quicker; about as many others as the last time take one before."""
        unit = step * self._sampler.microbatches + part
        others = self._how.workers if self._unit is None else max(1, unit - self._unit)
        self._unit = unit
        expected = divmod(unit + others, self._sampler.microbatches)
        self._source.ahead([expected] if expected[0] < self._how.steps else [])

    def _gradient(self, part: int, gradient: NDArray[np.float32]) -> Callable[[], float]:
        """`gradient`: where it goes, the same each time."""
        batch = self._source.batch(part)
        key = (len(batch.x),)
        if key not in self._bound:
            self._bound[key] = self._engine.gradient(
                self._layout.views(self._copy),
                batch,
                weight=1.0,
                out=self._layout.views(gradient),
            )
        return self._bound[key]


class _Local(_Loop):
    """Local SGD: several steps on a copy of the parameters."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        size = self._layout.size
        self._copy = np.empty(size, dtype=np.float32)
        # Zeros: nobody writes the gaps between tensors, and the rule reads them.
        self._sum, self._one = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
        self._update: LocalUpdate | None = None
        sampler = self._sampler
        self._parts = share(sampler.microbatches, self._exchange.connection.rank, self._how.workers)
        self._samples = sum(sampler.size(m) for m in self._parts)

    def _compute(self, work: Work) -> None:
        exchange, how = self._exchange, self._how
        if self._update is None:
            assert how.new_local_update is not None  # the launch gives it where there are local steps
            self._update = how.new_local_update()
        before, after = (exchange.state(work.gradient, version) for version in (work.version, work.version + 1))
        exchange.wait(work.version, self._layout.size)
        start = exchange.vector(work.version)
        np.copyto(self._copy, start)
        first = work.step * how.local_steps
        losses = []
        for step in range(first, min(first + how.local_steps, how.steps)):
            losses.append(self._step(step, partial(self._update, before=before, after=after)))
            before = after
        mark = perf_counter()
        change = exchange.gradient(work.gradient)
        np.subtract(start, self._copy, out=change)
        np.multiply(change, np.float32(1 / how.workers), out=change)
        self._compute_s += perf_counter() - mark
        self._push(work.step, work.begin, 0, float(np.mean(losses)))

    def _step(self, step: int, update: Callable[[int, NDArray[np.float32], NDArray[np.float32]], None]) -> float:
        """One step of this worker on its own part of the batch; its mean loss."""
        loss = 0.0
        self._source.begin(step, self._parts)
        for index, part in enumerate(self._parts):
            self._take(step, part)
            weight = self._sampler.size(part) / self._samples
            loss += weight * self._differentiate(self._gradient(index, part, weight))
            if index:
                np.add(self._sum, self._one, out=self._sum)
        mark = perf_counter()
        shorten(self._sum, self._how.clip_norm)
        update(step, self._copy, self._sum)
        self._compute_s += perf_counter() - mark
        return loss

    def _gradient(self, index: int, part: int, weight: float) -> Callable[[], float]:
        key = (part,)
        if key not in self._bound:
            out: NDArray[np.float32] = self._one if index else self._sum
            self._bound[key] = self._engine.gradient(
                self._layout.views(self._copy),
                self._source.batch(part),
                weight=weight,
                out=self._layout.views(out),
            )
        return self._bound[key]


class _Suffix:
    """From which tensors are final, each from its end down, to how much of the flat vector is, from its end down.

    The backward pass ends with the first layer, whose tensors mostly stand first in the vector.
    """

    def __init__(self, layout: Layout, final: Callable[[int], None]) -> None:
        """`final` is called with the first element of what is final, each time that there is more."""
        self._tensors = layout.tensors
        self._index = {tensor.name: i for i, tensor in enumerate(layout.tensors)}
        self._call = final
        self._reset()

    def _reset(self) -> None:
        self._final = [tensor.end for tensor in self._tensors]  # of each tensor: the elements from here on are final
        self._last = len(self._tensors) - 1  # all tensors after this one are final

    def ready(self, name: str, first: int) -> None:
        """Elements [first, size) of the gradient of `name` are final."""
        tensors, index = self._tensors, self._index[name]
        self._final[index] = tensors[index].begin + first
        if index != self._last:
            return  # a tensor behind it is missing
        while self._last >= 0 and self._final[self._last] == tensors[self._last].begin:
            self._last -= 1
        if self._last >= 0:
            self._call(self._final[self._last])
        else:
            self._call(0)
            self._reset()
