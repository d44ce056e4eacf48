"""Every metric, once: the instruments are made from this list, and so is the page that describes them.

Rules:
  - Names follow the Prometheus conventions: prefix `thalweg_`, base units, `_total` on counters and nowhere else.
  - No label has values that grow without bound. The job is none of them: which job a series belongs to is said by the
    target that it was scraped from (targets.py), so a process exports as many series whatever its job is called.
  - Who reads of a bad value reads here, too, what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

PREFIX: Final = "thalweg_"


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Process(Enum):
    """Which process of a run exports a metric."""

    SERVER = "server"
    """The server of each host. That of host 0, the lead, speaks for all workers, too: they tell it of their steps, many
    at a time, so that no worker has a thread that would take the interpreter in the middle of a step."""
    COORDINATOR = "coordinator"
    """The actor that starts servers and workers, again where some die."""
    SERVICE = "service"
    """`thalweg serve`, where there is one; its page answers with them."""


LABELS: Final = {
    "state": "`joined`, or `expected`: not there yet, or gone and not replaced yet",
    "worker": "rank of the worker; as many values as the run has workers",
    "device": "name of a GPU, cut at 100 characters; as many values as the run has workers, at most",
    "host": "number of the host; as many values as the run has hosts",
    "result": "what became of it",
    "copies": "`given` or `won`",
    "direction": "which way: `push` and `publish` in memory, `sent` and `received` between hosts",
    "content": "`gradients` or `parameters`",
    "format": "wire format: `float32`, `bfloat16`, `int8` or `topk`",
    "how": "`repeated`, `spoilt` or `missing`",
    "phase": "of a worker's step: `sample`, `compute`, `push` or `wait`",
    "sender": "`client`, or `host`: a server of the same job",
    "job_state": "`queued`, `running`, `cancelling`, `succeeded`, `failed` or `cancelled`",
    "method": "of the gRPC service of jobs",
    "status": "of gRPC: `OK`, `NOT_FOUND`, ...",
    "process": "what died: `worker`, `server` or `coordinator`",
}
"""What each label says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """Each is there once, and equal to nothing but itself.

    name:   as it is asked for, but for a histogram's `_bucket`, `_sum` and `_count`
    unit:   of its value, in words
    help:   one sentence
    bad:    how a bad value looks, and what to do
    labels: keys of LABELS
    everywhere: whether the servers of other hosts than the lead's have it, too
    """

    name: str
    kind: Kind
    unit: str
    help: str
    bad: str
    labels: tuple[str, ...] = ()
    process: Process = Process.SERVER
    everywhere: bool = False

    @property
    def family(self) -> str:
        """The name without a counter's `_total`."""
        return self.name.removesuffix("_total") if self.kind is Kind.COUNTER else self.name


_ALL: list[Metric] = []


def _metric(
    name: str,
    kind: Kind,
    unit: str,
    help_: str,
    bad: str,
    *labels: str,
    process: Process = Process.SERVER,
    everywhere: bool = False,
) -> Metric:
    metric = Metric(
        name=PREFIX + name,
        kind=kind,
        unit=unit,
        help=help_,
        bad=bad,
        labels=labels,
        process=process,
        everywhere=everywhere,
    )
    _ALL.append(metric)
    return metric


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

# How far the run is

STEPS = _metric(
    "steps_total", _C, "steps", "Steps applied and published by this run.",
    "Does not grow: the run stands still. See which worker has no `compute` in `thalweg_worker_phase_seconds_total`, "
    "and the logs of the server.",
)  # fmt: skip
SAMPLES = _metric(
    "samples_total", _C, "samples", "Samples that went into these steps.",
    "Grows slower than it did: see `thalweg_run:lost:ratio` for where the time goes.",
)  # fmt: skip
STEP = _metric(
    "step", _G, "steps", "Steps applied since the job began, those before a resume counted.",
    "Falls: the run went on from a checkpoint after a loss; `thalweg_restarts_total` says of what.",
)  # fmt: skip
STARTED = _metric(
    "started_timestamp_seconds", _G, "seconds since 1970", "When the first step of this attempt began.",
    "Moves: servers and workers were started anew.",
)  # fmt: skip
LOSS = _metric(
    "loss", _G, "as the model has it", "Mean loss over the batch of the newest step.",
    "Grows, or is infinite: lower `optimizer.learning_rate`, or set `clip_norm` or `warmup_steps`.",
)  # fmt: skip
LEARNING_RATE = _metric(
    "learning_rate", _G, "1", "Learning rate of the newest step.",
    "Not what you planned: look at `optimizer.schedule` in job.toml of the run.",
)  # fmt: skip
GRADIENT_NORM = _metric(
    "gradient_norm", _G, "as the gradient", "Euclidean norm of the summed gradient, taken with each line of "
    "metrics.jsonl.",
    "Grows by powers of ten: the run is about to diverge; set `optimizer.clip_norm`.",
)  # fmt: skip
EVALUATION_LOSS = _metric(
    "evaluation_loss", _G, "as the model has it", "Mean loss over the held-out samples.",
    "Grows while the loss falls: the model learns its training data by heart; stop, or set `weight_decay`.",
)  # fmt: skip
EVALUATION_ACCURACY = _metric(
    "evaluation_accuracy_ratio", _G, "ratio", "Share of the held-out samples classified rightly.",
    "Stays at 1 over the number of classes: nothing is learned; look at the labels and the learning rate.",
)  # fmt: skip
SKIPPED = _metric(
    "steps_skipped_total", _C, "steps", "Steps of this run that were not finite, and left the parameters as they were.",
    "Grows: samples or the learning rate make the loss NaN or infinite; ten such steps in a row end the run.",
)  # fmt: skip

# Where the time of a step goes

STEP_SECONDS = _metric(
    "step_seconds", _H, "seconds", "From one publish to the next.",
    "The upper quantiles are far from the median: something disturbs single steps; see the phases.",
)  # fmt: skip
PHASE_SECONDS = _metric(
    "step_phase_seconds", _H, "seconds", "Time of a worker's step by phase.",
    "`wait` is long: see `thalweg_waited_for_seconds_total`; `sample` is: the data are slow to draw.",
    "phase",
)  # fmt: skip
APPLY_SECONDS = _metric(
    "apply_seconds", _H, "seconds", "A worker's share of summing the gradients and applying the rule.",
    "Long beside `compute`: the model is large for its batch; a larger batch makes fewer updates.",
)  # fmt: skip
WORKER_PHASE_SECONDS = _metric(
    "worker_phase_seconds_total", _C, "seconds", "Time of a worker by phase.",
    "One worker's `compute` takes longer for as many microbatches: its core is shared, throttled or slower.",
    "worker", "phase",
)  # fmt: skip
WORKER_MICROBATCHES = _metric(
    "worker_microbatches_total", _C, "microbatches", "Microbatches that a worker computed.",
    "One worker has far fewer: it is slow, and the others do its work.",
    "worker",
)  # fmt: skip
WAITED_FOR = _metric(
    "waited_for_seconds_total", _C, "seconds",
    "Time that the other workers of a step had nothing to compute while this one, its slowest, still did.",
    "One worker has most of it: that one is what the run waits for. Replace its machine, or free its core; or use "
    "`consistency = \"ssp\"`, in which nobody waits for a step to be whole, and this stays 0.",
    "worker",
)  # fmt: skip
PACE = _metric(
    "worker_microbatch_seconds", _G, "seconds",
    "Shortest of the newest few microbatches of a worker; +Inf while it leaves them to quicker ones.",
    "+Inf, or far above the others': a slow worker. Only where the workers meet on one host (`sync`).",
    "worker",
)  # fmt: skip
TAKEN_OVER = _metric(
    "microbatches_taken_over_total", _C, "microbatches",
    "Microbatches computed by another worker than the one that they were dealt to.",
    "Grows steadily: one worker is slow; `thalweg_worker:slowness:ratio` says which.",
)  # fmt: skip

COPIES = _metric(
    "microbatch_copies_total", _C, "microbatches",
    "Microbatches that a slow worker was in the middle of, and that another one computed, too: `given` in all, `won` "
    "whole before the slow worker's own.",
    "Grows steadily: a worker stalls again and again; look at its host. Where few of the given are won, some "
    "microbatches take much longer than most.",
    "copies",
)  # fmt: skip

# Who is there

WORKERS = _metric(
    "workers", _G, "workers", "Workers by state.",
    "`expected` is not 0 for long: Ray finds no room for a worker; see `ray status`.",
    "state",
)  # fmt: skip
GENERATION = _metric(
    "generation", _G, "1", "Number of the membership: it grows with each change.",
    "Grows: workers come and go; the logs of Ray tell why.",
)  # fmt: skip

# Gradients and parameters on their way

PUSHES = _metric(
    "pushes_total", _C, "pushes", "Gradient pushes of the job's own workers by what became of them.",
    "`late` grows with backup workers only, and is what they cost; `duplicate` grows where messages come twice.",
    "result",
)  # fmt: skip
CLIENT_PUSHES = _metric(
    "client_pushes_total", _C, "pushes", "Gradient pushes of clients by what became of them.",
    "`duplicate`: a client says again what was said, as after a lost answer; `late`: its name is out of date.",
    "result", everywhere=True,
)  # fmt: skip
FENCED = _metric(
    "pushes_fenced_total", _C, "pushes", "Pushes that were refused since they came from an earlier membership.",
    "`host` grows: a server that was taken for dead still sends; make sure that its process is gone. `client` grows: a "
    "client has to ask for `Status` again.",
    "sender", everywhere=True,
)  # fmt: skip
STALENESS = _metric(
    "staleness_versions", _H, "versions", "How many versions old what a push is based on was.",
    "Near `thalweg_staleness_bound_versions`: workers wait at the bound; raise `train.staleness`, or find out who is "
    "slow. Far above 1 in `async`: lower the learning rate, or set `staleness_scaling`.",
)  # fmt: skip
STALENESS_BOUND = _metric(
    "staleness_bound_versions", _G, "versions", "The bound of staleness that the job sets; 0 in `sync`.",
    "Missing: the job has none (`async`).",
)  # fmt: skip
EXCHANGED = _metric(
    "exchanged_bytes_total", _C, "bytes", "Bytes exchanged with workers in shared memory.",
    "Nothing moves here: it says how many bytes would have to be moved without shared memory.",
    "direction",
)  # fmt: skip
WIRE = _metric(
    "wire_bytes_total", _C, "bytes", "Bytes of the messages with tensors between a host and the others.",
    "Near what the network carries: use `cluster.wire = \"bfloat16\"` or `\"int8\"`. 0 on one host.",
    "host", "direction", "content", "format", everywhere=True,
)  # fmt: skip
AMISS = _metric(
    "wire_messages_amiss_total", _C, "messages",
    "Messages between hosts that came again, and were ignored; spoilt, or not at all, and were asked for.",
    "Grows: something between these hosts loses, doubles or spoils what TCP should keep; look at cards and proxies.",
    "how",
)  # fmt: skip
COMPRESSION_ERROR = _metric(
    "compression_error_norm", _G, "as the gradient",
    "Euclidean norm of what the wire format has left out of a host's gradients so far, and still owes.",
    "Grows without end, or is many times `thalweg_gradient_norm`: the format loses more than it makes up for; use one "
    "that loses less. 0 for float32, and on one host.",
    "host", everywhere=True,
)  # fmt: skip

# Checkpoints

CHECKPOINTS = _metric(
    "checkpoints_total", _C, "checkpoints", "Checkpoints by what became of them.",
    "`failed` grows: the storage refuses them, the warning of the run says why. `skipped`: it is slower than they fall "
    "due; raise `checkpoint.every_steps`.",
    "result", everywhere=True,
)  # fmt: skip
CHECKPOINT_STEP = _metric(
    "checkpoint_step", _G, "steps",
    "Step of the newest checkpoint; the one that the run began with where there is none yet.",
    "Far behind `thalweg_step`: so many steps are lost with the next server.",
)  # fmt: skip
CHECKPOINT_EVERY = _metric(
    "checkpoint_every_steps", _G, "steps", "Steps between two checkpoints; 0: only at the end.",
    "Too large for what a step costs: set `checkpoint.every_steps`.",
)  # fmt: skip
CHECKPOINT_TIMESTAMP = _metric(
    "checkpoint_timestamp_seconds", _G, "seconds since 1970",
    "When the newest checkpoint was there; where there is none yet, when the first step began.",
    "Long ago: see `thalweg_checkpoints_total` for whether they fail.",
)  # fmt: skip
CHECKPOINT_SECONDS = _metric(
    "checkpoint_seconds", _H, "seconds", "From the copy of the state until the checkpoint is there.",
    "Longer than the time between two: they are skipped; use quicker storage, or fewer checkpoints.",
)  # fmt: skip

REPLICAS = _metric(
    "replicas_total", _C, "replicas", "Replicas of the state in the memory of hosts, by what became of them.",
    "`failed` grows: the warning of the run says why; a lost server costs the steps since the newest checkpoint. "
    "`skipped`: a host heard too late of one.",
    "result",
)  # fmt: skip
REPLICA_STEP = _metric(
    "replica_step", _G, "steps",
    "Step of the newest replica; the one that the run began with where there is none yet, and always on one host.",
    "Far behind `thalweg_step`: so many steps are lost with the next server, or those since the newest checkpoint. "
    "Replicas that take long are rare: see `thalweg_replicating_seconds_total`.",
)  # fmt: skip
REPLICATING = _metric(
    "replicating_seconds_total", _C, "seconds", "For how long a replica was under way, from the copy of the state on.",
    "By far more than 2 % of the time: steps are slower for that; raise `checkpoint.replicate_every_s`.",
)  # fmt: skip

# Failures

RESTARTS = _metric(
    "restarts_total", _C, "restarts", "Processes that died and were replaced.",
    "Grows: `summary.json` and the output of the run name the causes; beyond `cluster.max_failures` the run fails.",
    "process", process=Process.COORDINATOR,
)  # fmt: skip
ATTEMPTS = _metric(
    "attempts_total", _C, "attempts", "How often the coordinator started servers and workers.",
    "Grows: each costs the steps since the newest checkpoint or replica.",
    process=Process.COORDINATOR,
)  # fmt: skip
RECOVERY_SECONDS = _metric(
    "recovery_seconds", _H, "seconds", "From the loss of a process until all are there again and a step was made.",
    "Long: Ray takes long to find room or to start processes; or checkpoints are far apart.",
    process=Process.COORDINATOR,
)  # fmt: skip
DEVICE = _metric(
    "worker_device_info", _G, "1", "1, with the name of the GPU that a worker computes on; none for workers without.",
    "Workers of one run have different GPUs: the slowest of them sets the pace, and bits may depend on which computes "
    "what.",
    "worker", "device", process=Process.COORDINATOR,
)  # fmt: skip
DEVICE_MEMORY = _metric(
    "worker_device_memory_bytes", _G, "bytes", "Memory of the GPU that a worker computes on, which others may share.",
    "Less than the model needs: the run fails with what to do; see `cluster.gpus_per_worker`.",
    "worker", process=Process.COORDINATOR,
)  # fmt: skip
RECOVERING = _metric(
    "recovering_seconds", _G, "seconds", "For how long the run has been recovering from a loss; 0: it is not.",
    "Grows: no room for what died; see `ray status`.",
    process=Process.COORDINATOR,
)  # fmt: skip

# The service

JOBS = _metric(
    "jobs", _G, "jobs", "Jobs of the service by state.",
    "`queued` grows: the cluster has no room; `thalweg jobs` says what each waits for. `failed` grows: `thalweg logs` "
    "says why.",
    "job_state", process=Process.SERVICE,
)  # fmt: skip
OLDEST_QUEUED = _metric(
    "oldest_queued_seconds", _G, "seconds", "How long ago the oldest job in the queue was submitted; 0: there is none.",
    "Grows: it needs more than the cluster has, or others go before it; `thalweg jobs` says which.",
    process=Process.SERVICE,
)  # fmt: skip
CALLS = _metric(
    "service_calls_total", _C, "calls", "Calls that the service has answered, by method and status.",
    "`INTERNAL` grows: a mistake in Thalweg, its log has more. `UNAUTHENTICATED` does: somebody has the wrong token.",
    "method", "status", process=Process.SERVICE,
)  # fmt: skip
CALL_SECONDS = _metric(
    "service_call_seconds", _H, "seconds", "From a call until its answer; of those that answer once.",
    "The upper quantiles of `Get` are above 0.05: the disk of the table is slow, or the cores are taken.",
    "method", process=Process.SERVICE,
)  # fmt: skip

METRICS: Final = tuple(_ALL)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
