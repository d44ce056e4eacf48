"""The job file: what a person submits, as TOML and as frozen dataclasses.

    draft = load_job("mnist.toml", ["train.steps=100"])     # a job, and what is wrong with it
    job = draft.job                                         # where there are no draft.problems
    job.train.batch_size, job.optimizer.options_for("rule")
    lengths, problems = resolve(job, samples=60_000)

Every key is declared once, in sections.py and data_section.py, with its range, default and meaning; the checker,
the messages, the writer and the reference page read that declaration. kinds.py says what a key may hold, laws.py what
keys must hold together, draft.py what a job with mistakes is still good for. Whether this version can run what the
job asks for (consistency "ssp", engine "torch") is decided at the launch.
"""

from thalweg_proto.job.data_section import BUILT_IN_DATA, TEXT_ENDINGS, DataSection, is_function, is_text
from thalweg_proto.job.draft import Draft
from thalweg_proto.job.kinds import ArrayPair
from thalweg_proto.job.loading import load_job, load_job_text
from thalweg_proto.job.parsing import parse_job
from thalweg_proto.job.resolving import ResolvedTrain, resolve, resolve_batch
from thalweg_proto.job.sections import (
    BUILT_IN_MODELS,
    CheckpointSection,
    ClusterSection,
    Job,
    MetricsSection,
    ModelSection,
    OptimizerSection,
    TrainSection,
)
from thalweg_proto.job.writing import job_reference, job_to_toml

__all__ = [
    "BUILT_IN_DATA",
    "BUILT_IN_MODELS",
    "TEXT_ENDINGS",
    "ArrayPair",
    "CheckpointSection",
    "ClusterSection",
    "DataSection",
    "Draft",
    "Job",
    "MetricsSection",
    "ModelSection",
    "OptimizerSection",
    "ResolvedTrain",
    "TrainSection",
    "is_function",
    "is_text",
    "job_reference",
    "job_to_toml",
    "load_job",
    "load_job_text",
    "parse_job",
    "resolve",
    "resolve_batch",
]
