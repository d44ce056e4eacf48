"""`thalweg eval`: loss and accuracy of a run's weights, as a worker computes them, in this process.

The chunks, the engine and the order of summation are those of a run, with one thread for each library as there; so the
figures for what the job holds out are those of summary.json to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from thalweg_cluster.launch.trained import Trained
from thalweg_cluster.server.evaluation import EvaluationResult, Evaluations
from thalweg_proto.errors import InputError, NonFiniteError, Problem, WorkerError, attempt
from thalweg_proto.job import ArrayPair
from thalweg_proto.job.data_section import BUILT_IN_DATA, DATA_SOURCES
from thalweg_proto.job.kinds import Either, MismatchError, function_in, nearest
from thalweg_proto.job.loading import near_missing, toml_value
from thalweg_proto.job.parsing import describe
from thalweg_proto.messages import Evaluated
from thalweg_worker.batches import evaluation_chunks
from thalweg_worker.datasets import Samples, load_dataset
from thalweg_worker.engines import make_engine
from thalweg_worker.loop.evaluation import evaluate
from thalweg_worker.models.tracebacks import user_traceback


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """loss: mean over the labels; accuracy: share of rightly classified ones, None where nothing is classified."""

    loss: float
    accuracy: float | None
    samples: int


def read_data(text: str) -> str | ArrayPair:
    """What `--data` says: a built-in name, a file, `x.npy,y.npy`, or `{ x = "...", y = "..." }` as in a job file; paths
    start at the present folder. InputError where it is none of these, or a file is not there."""
    here = Path.cwd()
    value = toml_value(text) if text.lstrip().startswith("{") else text
    parts = text.split(",")
    if value == text and len(parts) == 2 and not Path(text).exists():
        value = dict(zip("xy", parts, strict=True))
    kind = Either(DATA_SOURCES)
    try:
        data: str | ArrayPair = kind.read(value, here)
    except MismatchError as mismatch:
        expected = f"{kind.expected} or x.npy,y.npy"
        raise InputError([Problem("--data", expected, describe(value), str(mismatch))]) from None
    paths = (data.x, data.y) if isinstance(data, ArrayPair) else () if data in BUILT_IN_DATA else (_file_of(data),)
    problems = [
        Problem("--data", "a file", f"no such file: {path}", _near(path)) for path in paths if not Path(path).exists()
    ]
    if problems:
        raise InputError(problems)
    return data


def _file_of(data: str) -> str:
    function = function_in(data)
    return data if function is None else function[0]


def _near(path: str) -> str:
    return nearest(Path(path).name, BUILT_IN_DATA) or near_missing(path, "the present folder")


def evaluate_run(trained: Trained, instead: str | ArrayPair | None) -> Evaluation:
    """Loss and accuracy of the weights, on the job's held-out set or `instead`, scaled and with classes as in training.

    Raises InputError where data or model is not what it should be, WorkerError where the user's model raises, and
    NonFiniteError where the loss is no number.
    """
    job = trained.job
    problems: list[Problem] = []
    if instead is None and job.data.eval == 0.0:
        problems.append(Problem("--data", "a data set, since the job holds nothing out (data.eval = 0)", "nothing"))
    loaded = load_dataset(job.data, job.seed, instead=instead)
    problems += loaded.problems
    with threadpool_limits(1, user_api="blas"):
        model = None
        if (spec := loaded.spec) is not None:
            model = attempt(problems, lambda: trained.model(spec))
        held_out = None if loaded.data is None else loaded.data.eval
        if problems or spec is None or held_out is None:
            raise InputError(problems)
        classify = spec.task == "classification"
        engine = make_engine(job.cluster.engine, model, classify=classify, autocast=job.cluster.autocast)
        sums = _Sums(held_out)
        try:
            evaluate(sums, engine, trained.parameters, held_out, trained.step, range(sums.chunks))
        except InputError:  # of a sample
            raise
        except Exception as error:
            raise WorkerError(user_traceback(error)) from None
    result = sums.result
    if not math.isfinite(result.loss):
        raise NonFiniteError(f"the loss on these {len(held_out):,} samples is {result.loss}")
    return Evaluation(loss=result.loss, accuracy=result.accuracy, samples=len(held_out))


class _Sums:
    """In place of a server: puts the chunks together as one does."""

    def __init__(self, data: Samples) -> None:
        self.chunks = evaluation_chunks(len(data))
        self._parts = Evaluations(self.chunks)
        self._result: EvaluationResult | None = None

    def evaluated(self, message: Evaluated) -> None:
        self._result = self._parts.on_evaluated(message)

    @property
    def result(self) -> EvaluationResult:
        """Once all chunks are in."""
        assert self._result is not None
        return self._result
