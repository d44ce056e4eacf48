"""The job file as data: one frozen dataclass for each table, with each key's range, default and meaning.

Paths are absolute: the reader has resolved them against the folder of the job file.

The options of an update rule have the names and defaults of `torch.optim`, so that hyper-parameters carry
over. Two defaults are our own: the learning rate of 0.1 of sgd, momentum and nesterov (torch: 0.001), and the
momentum of 0.9 of the last two (torch: 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from thalweg_proto.job.data_section import DataSection
from thalweg_proto.job.kinds import (
    FROM_0_TO_1,
    Bounds,
    Choice,
    Either,
    FilePath,
    Flag,
    ModelName,
    Name,
    Number,
    Numbers,
    Text,
    Whole,
)
from thalweg_proto.job.options import REQUIRED, Section, option, option_of

BUILT_IN_MODELS = ("linear", "mlp", "convnet")
MICROBATCHES = 8  # where the job does not say, and the batch is not smaller


@dataclass(frozen=True, kw_only=True)
class ModelSection(Section):
    """[model]: what is trained. Keys other than `use` and `init` are `options`, for the model's `build`."""

    use: str = option(ModelName(BUILT_IN_MODELS), "a built-in model, or build(data_spec, **options) in a file")
    init: str | None = option(
        FilePath(expected="a path of a .safetensors file"),
        "weights to start from; random without",
        default=None,
    )
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainSection(Section):
    """[train]: how long, in which batches, how consistent. Exactly one of `steps` and `epochs` is not None.

    microbatches: None where batch_size is "full" and the file does not say; the data decides (see `resolve`)
    """

    steps: int | None = option(Whole(minimum=1), "how many updates (or give epochs)", default=None)
    epochs: float | None = option(Number(above=0), "how often each sample is seen (or give steps)", default=None)
    batch_size: int | Literal["full"] = option(
        Either((Whole(minimum=1), Choice(("full",)))),
        "samples in a step, over the whole cluster; 1 is true SGD, full is batch gradient descent",
        default=128,
    )
    microbatches: int | None = option(
        Whole(minimum=1),
        f"slices of a batch, the unit of work; {MICROBATCHES}, or batch_size if smaller",
        default=None,
    )
    consistency: Literal["sync", "ssp", "async"] = option(
        Choice(("sync", "ssp", "async")),
        "which versions of the parameters a gradient may be computed on",
        default="sync",
    )
    staleness: int | None = option_of(
        "consistency", {"ssp": 3}, Whole(minimum=0), "how many steps a worker may be ahead of the slowest"
    )
    backup_workers: int | None = option_of(
        "consistency",
        {"sync": 0},
        Whole(minimum=0),
        "how many of the slowest microbatches a step does not wait for; with them it is not exact",
    )
    local_steps: int | None = option_of(
        "consistency",
        {"sync": 1},
        Whole(minimum=1),
        "steps that each worker takes by itself before the servers average what changed; 1: none",
    )
    outer_learning_rate: float | None = option_of(
        "consistency", {"sync": 0.7}, Number(above=0), "with local_steps: of the rule that applies the average"
    )
    outer_momentum: float | None = option_of(
        "consistency", {"sync": 0.9}, FROM_0_TO_1, "with local_steps: its momentum (Nesterov); 0: plain averaging"
    )
    non_finite: Literal["stop", "skip"] | None = option_of(
        "consistency",
        {"sync": "stop"},
        Choice(("stop", "skip")),
        "what becomes of a step whose loss or gradient is not finite: the run ends, or the parameters stay as they are",
    )
    staleness_scaling: bool | None = option_of(
        "consistency",
        {"ssp": False, "async": False},
        Flag(),
        "divide the learning rate of a push by 1 + its staleness",
    )
    eval_every: int = option(Whole(minimum=0), "steps between evaluations; 0: only at the end", default=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        # A batch size that is wrong gets here too, as None.
        if self.microbatches is None and isinstance(self.batch_size, int):
            object.__setattr__(self, "microbatches", min(MICROBATCHES, self.batch_size))


_SGD = dict.fromkeys(("sgd", "momentum", "nesterov"), 0.1)
_RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
_SCHEDULES = ("constant", "step", "cosine", "linear")


@dataclass(frozen=True, kw_only=True)
class OptimizerSection(Section):
    """[optimizer]: the update rule and what its learning rate does.

    `options_for("rule")` and `options_for("schedule")` hold what the chosen rule and schedule take, by name.
    """

    rule: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"] = option(
        Choice(_RULES), "the update rule, as in torch.optim", default="momentum"
    )
    learning_rate: float = option_of(
        "rule",
        {**_SGD, "adagrad": 0.01, "rmsprop": 0.01, "adam": 0.001, "adamw": 0.001},
        Number(above=0),
        "the step width, after the warm-up and before the schedule lowers it",
    )
    weight_decay: float = option_of(
        "rule",
        {**dict.fromkeys(_RULES, 0.0), "adamw": 0.01},
        Number(minimum=0),
        "a pull to zero: added to the gradient, or (adamw) taken from the parameters directly",
    )
    momentum: float | None = option_of(
        "rule",
        {"momentum": 0.9, "nesterov": 0.9, "rmsprop": 0.0},
        FROM_0_TO_1,
        "the part of the last update that is kept",
    )
    alpha: float | None = option_of("rule", {"rmsprop": 0.99}, FROM_0_TO_1, "the part of the mean square that is kept")
    centered: bool | None = option_of(
        "rule", {"rmsprop": False}, Flag(), "divide by the deviation instead of the root mean square"
    )
    betas: tuple[float, float] | None = option_of(
        "rule",
        dict.fromkeys(("adam", "adamw"), (0.9, 0.999)),
        Numbers(2, FROM_0_TO_1),
        "the parts of the mean and of the mean square that are kept",
    )
    eps: float | None = option_of(
        "rule",
        {"adagrad": 1e-10, "rmsprop": 1e-8, "adam": 1e-8, "adamw": 1e-8},
        Number(above=0),
        "added to the divisor, outside the root",
    )
    lr_decay: float | None = option_of(
        "rule", {"adagrad": 0.0}, Number(minimum=0), "the learning rate is divided by 1 + step * lr_decay"
    )
    initial_accumulator_value: float | None = option_of(
        "rule", {"adagrad": 0.0}, Number(minimum=0), "what the sum of squares starts from"
    )
    schedule: Literal["constant", "step", "cosine", "linear"] = option(
        Choice(_SCHEDULES), "how the learning rate goes over the steps", default="constant"
    )
    warmup_steps: int = option(
        Whole(minimum=0), "steps over which the learning rate grows from 0 to its full value", default=0
    )
    step_size: int | None = option_of(
        "schedule", {"step": REQUIRED}, Whole(minimum=1), "steps between two cuts of the learning rate"
    )
    gamma: float | None = option_of(
        "schedule", {"step": 0.1}, Number(above=0), "what each cut multiplies the learning rate by"
    )
    min_learning_rate: float | None = option_of(
        "schedule",
        {"cosine": 0.0, "linear": 0.0},
        Number(minimum=0),
        "where the learning rate is after the last step",
    )
    clip_norm: float = option(
        Number(minimum=0),
        "the largest global norm of a gradient; longer ones are shortened; 0: off",
        default=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class ClusterSection(Section):
    """[cluster]: who computes."""

    workers: int | tuple[int, int] = option(
        Either((Whole(minimum=1), Bounds(Whole(minimum=1)))),
        "how many workers; or [least, most]: as many of them as the Ray cluster has room for at the time",
        default=2,
    )
    gpus_per_worker: float = option(
        Number(minimum=0), "GPUs of each worker, at most 1; below 1: a share of one, as in Ray", default=0.0
    )
    engine: Literal["numpy", "cupy", "torch", "jax", "emulated"] = option(
        Choice(("numpy", "cupy", "torch", "jax", "emulated")), "what computes the gradients", default="numpy"
    )
    placement: Literal["PACK", "SPREAD"] = option(
        Choice(("PACK", "SPREAD")), "workers on few hosts, or on many, as in Ray", default="PACK"
    )
    servers: int = option(
        Whole(minimum=0),
        "servers on hosts without workers, each with a shard; 0: one on each host with workers",
        default=0,
    )
    wire: Literal["float32", "bfloat16", "int8", "topk"] = option(
        Choice(("float32", "bfloat16", "int8", "topk")),
        "in which gradients travel between hosts; all but float32 lose something, and make up for it later",
        default="float32",
    )
    wire_fraction: float | None = option_of(
        "wire", {"topk": 0.01}, Number(above=0, below=1), "the part of a gradient that is sent at a time"
    )
    wire_parameters: Literal["float32", "bfloat16"] = option(
        Choice(("float32", "bfloat16")), "in which parameters travel between hosts", default="float32"
    )
    emulated_ms: float | tuple[float, ...] | None = option_of(
        "engine",
        {"emulated": 50.0},
        Either((Number(minimum=0), Numbers(None, Number(minimum=0)))),
        "how long a microbatch takes; a list: with each worker, by rank",
    )
    autocast: Literal["off", "bfloat16"] | None = option_of(
        "engine",
        {"torch": "off"},
        Choice(("off", "bfloat16")),
        "in what torch.autocast has a forward pass compute; parameters and gradients stay float32",
    )
    compile: bool | None = option_of(
        "engine", {"torch": False}, Flag(), "torch.compile the module, for each size of a microbatch, before the start"
    )
    lease_s: float = option(
        Number(above=0),
        "how long a worker may at least be at one piece of work, a microbatch, before it counts as hanging",
        default=30.0,
    )
    max_failures: int = option(
        Whole(minimum=-1), "how many lost workers and servers are replaced; -1: no bound", default=3
    )

    @property
    def least(self) -> int:
        """With how many workers the job runs at least."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """With how many workers the job runs where there is room."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


@dataclass(frozen=True, kw_only=True)
class CheckpointSection(Section):
    """[checkpoint]: what is kept to go on from."""

    every_steps: int = option(Whole(minimum=0), "steps between checkpoints; 0: only at the end", default=100)
    keep: int = option(Whole(minimum=1), "how many of the newest are kept", default=3)
    url: str | None = option(
        Text(),
        "where they lie, s3://bucket/folder or another that fsspec knows; DIR/checkpoints if not given",
        default=None,
    )
    replicate_every_s: float = option(
        Number(minimum=0),
        "on several hosts: seconds at least between two replicas of the state in other hosts' memory; 0: none",
        default=5.0,
    )


@dataclass(frozen=True, kw_only=True)
class MetricsSection(Section):
    """[metrics]: where Prometheus reads."""

    port: int = option(Whole(minimum=0, maximum=65535), "of /metrics; 0: a free one, printed", default=0)


@dataclass(frozen=True, kw_only=True)
class Job(Section):
    """What a person submits."""

    name: str = option(Name(), "of the job, and of what it writes; the file's name if not given")
    seed: int = option(Whole(minimum=0, maximum=2**63 - 1), "everything random follows from it", default=0)
    data: DataSection
    model: ModelSection
    train: TrainSection
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    cluster: ClusterSection = field(default_factory=ClusterSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    metrics: MetricsSection = field(default_factory=MetricsSection)


SECTIONS: Mapping[str, type[Any]] = {
    "data": DataSection,
    "model": ModelSection,
    "train": TrainSection,
    "optimizer": OptimizerSection,
    "cluster": ClusterSection,
    "checkpoint": CheckpointSection,
    "metrics": MetricsSection,
}
