"""The worker as Ray runs it: builds its model and data, joins the server of its host, and runs the step loop."""

from __future__ import annotations

from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from thalweg_proto.errors import ThalwegError, WorkerError
from thalweg_proto.layout import Layout
from thalweg_worker.batch import DataSpec
from thalweg_worker.datasets import Dataset, Shipment
from thalweg_worker.engines.numpy_engine import NumpyEngine
from thalweg_worker.exchange import Exchange, NewServerWork
from thalweg_worker.loop import run
from thalweg_worker.models import ModelSource
from thalweg_worker.models.tracebacks import user_traceback
from thalweg_worker.sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What all workers of a job are told when they are made.

    new_server_work: makes the worker's share of the server's part of a step; it comes from the launch, since the
                     worker's code does not know the server's
    """

    job_id: str
    address: str
    layout: Layout
    model: ModelSource
    data_spec: DataSpec
    sampler: Sampler
    new_server_work: NewServerWork


class Worker:
    """One worker; `run` returns when the server says stop."""

    def __init__(self, spec: WorkerSpec, rank: int, data: tuple[Shipment, Shipment | None]) -> None:
        """`data`: what is trained on and what is held out; together, since both may be rows of the same arrays."""
        # One BLAS thread: the host's CPUs are dealt out to workers, and more threads would change the bits.
        self._limits = threadpool_limits(1, user_api="blas")
        self._spec = spec
        self._rank = rank
        training, held_out = data
        self._training = Dataset.from_shipment(training)
        self._held_out = Dataset.from_shipment(held_out) if held_out is not None else None
        model = spec.model.build(spec.data_spec)
        self._engine = NumpyEngine(model, classify=spec.data_spec.task == "classification")

    def run(self, _server_is_open: object = None) -> None:
        """Trains until the server says stop. The argument only makes Ray wait until the server listens.

        Raises WorkerError where the user's model raised, with that exception and the user's own frames.
        """
        spec = self._spec
        with Exchange(
            spec.address, job_id=spec.job_id, rank=self._rank, layout=spec.layout, new_server_work=spec.new_server_work
        ) as exchange:
            try:
                run(exchange, self._engine, spec.sampler, self._training, self._held_out)
            except ThalwegError:
                raise
            except Exception as error:
                raise WorkerError(user_traceback(error)) from None
