"""The worker as Ray runs it: builds its model and data, joins the server of its host, and runs the step loop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from thalweg_proto.errors import InputError, ThalwegError, WorkerError
from thalweg_proto.faults import PlannedFaults
from thalweg_proto.layout import Layout
from thalweg_proto.ledger import Division
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets import Fetcher, Shipped
from thalweg_worker.engines import Card, GradientEngine, card_of, make_engine, model_for, with_faults
from thalweg_worker.engines.gpu import left_behind, prepare
from thalweg_worker.exchange import Connection, MeetingExchange, NewServerWork, ServedExchange, join
from thalweg_worker.ledger import Ledger
from thalweg_worker.loop import ServedLoop, run_meeting, run_served
from thalweg_worker.models import ModelSource
from thalweg_worker.models.tracebacks import user_traceback
from thalweg_worker.out_of_memory import advice, is_out_of_memory
from thalweg_worker.sampler import Sampler

NICENESS = 10
"""Of a worker where its host's server has a part in each step: the server, who keeps the wire full, goes first."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What all workers of a job are told when they are made.

    new_server_work: makes the worker's share of the server's part of a step, where the workers of the one host meet; it
                     comes from the launch, since the worker's code does not know the server's
    engine:          name of the engine, as in the job file; with "emulated" a microbatch takes `emulated_ms`,
                     which may differ by rank
    autocast, compile: of the engine "torch", as in the job file
    gpus:            of the worker, as in the job file
    served:          how it computes where the server does its part itself
    ledger:          folder in which it is written down which samples go into which step; None: nowhere
    faults:          what shall go wrong
    """

    job_id: str
    layout: Layout
    model: ModelSource
    data_spec: DataSpec
    sampler: Sampler
    new_server_work: NewServerWork
    served: ServedLoop
    engine: str = "numpy"
    emulated_ms: float | tuple[float, ...] | None = None
    autocast: str | None = None
    compile: bool | None = None
    gpus: float = 0.0
    ledger: Path | None = None
    faults: PlannedFaults = field(default_factory=PlannedFaults)


class Worker:
    """One worker; `run` returns when the server says stop. Ray calls `card` before that, where there is one."""

    def __init__(self, spec: WorkerSpec, rank: int, data: tuple[Shipped, Shipped | None]) -> None:
        """`data`: what is trained on and what is held out; together, since both may be rows of the same arrays."""
        prepare(spec.gpus)
        # One BLAS thread: the host's CPUs are dealt out to workers, and more threads would change the bits.
        self._limits = threadpool_limits(1, user_api="blas")
        self._spec = spec
        self._rank = rank
        training, held_out = data
        fetcher = Fetcher()
        self._training = training.open(fetcher)
        self._held_out = held_out.open(fetcher) if held_out is not None else None
        self._faults = spec.faults.of("worker", rank)

    def card(self) -> Card:
        """The GPU that it computes on; of a worker that has one. WorkerError where its engine finds none."""
        return card_of(self._spec.engine)

    def run(self, address: str, _server_is_open: object = None) -> None:
        """Trains until the server says stop.

        address: name of the abstract Unix socket of this host's server
        The other argument only makes Ray wait until the server listens.

        Raises WorkerError where the user's model or data raised, with that exception and the user's own frames; or with
        what to do where memory did not suffice, or there is no GPU.
        """
        spec = self._spec
        with self._words_for_errors():
            engine = with_faults(self._new_engine(), self._faults)  # compiled before the server waits for this worker
        with (
            join(address, job_id=spec.job_id, rank=self._rank, layout=spec.layout) as connection,
            self._words_for_errors(),
        ):
            self._train(connection, engine)

    def _new_engine(self) -> GradientEngine:
        spec, times = self._spec, self._spec.emulated_ms
        if spec.gpus:
            self.card()  # before the model, which would start the framework
        model = model_for(spec.engine, spec.model, spec.data_spec, spec.sampler.seed)
        sizes = {spec.sampler.size(m) for m in range(spec.sampler.microbatches)} if spec.compile else ()
        return make_engine(
            spec.engine,
            model,
            classify=spec.data_spec.task == "classification",
            emulated_ms=times[self._rank] if isinstance(times, tuple) else times,
            autocast=spec.autocast,
            compiled=sorted(sizes),
            gpu=spec.gpus > 0,
            # A worker that does not wait for others takes new parameters for each microbatch; but for local steps.
            stays=not spec.served.copies or spec.served.local_steps > 1,
        )

    @contextmanager
    def _words_for_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:  # of a sample, which only user's code can give that late
            raise WorkerError(str(error)) from None
        except ThalwegError:
            raise
        except Exception as error:
            raise WorkerError(self._in_words(error)) from None

    def _in_words(self, error: Exception) -> str:
        if not is_out_of_memory(error):
            hint = left_behind(error) if self._spec.gpus else ""
            return "\n".join([user_traceback(error), *([hint] if hint else [])])
        sampler, parameters = self._spec.sampler, self._spec.layout.parameters
        sizes = {"batch_size": sampler.batch_size, "microbatches": sampler.microbatches, "parameters": parameters}
        return advice(error, rank=self._rank, engine=self._spec.engine, gpus=self._spec.gpus, **sizes)

    def _train(self, connection: Connection, engine: GradientEngine) -> None:
        spec = self._spec
        rest = (engine, spec.sampler, self._training, self._held_out)
        with self._ledger() as ledger:
            if connection.welcome.meet:
                with MeetingExchange(connection, spec.new_server_work, self._faults) as meeting:
                    run_meeting(meeting, *rest, ledger)
            else:
                os.nice(NICENESS)
                run_served(ServedExchange(connection, self._faults), *rest, spec.served, ledger)

    def _ledger(self) -> AbstractContextManager[Ledger | None]:
        folder, sampler = self._spec.ledger, self._spec.sampler
        if folder is None:
            return nullcontext()
        return Ledger(folder, self._rank, Division(sampler.samples, sampler.batch_size, sampler.microbatches))
