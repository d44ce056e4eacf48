"""What a worker says that runs out of memory, whichever framework its model is of."""

from __future__ import annotations

from thalweg_worker.models.tracebacks import summary

SIGNS = ("can't allocate memory", "RESOURCE_EXHAUSTED", "out of memory")
"""In the words of PyTorch on the CPU, of XLA, and of CUDA; each of them raises a RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a device did not suffice (NumPy: MemoryError)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def advice(error: BaseException, *, rank: int, batch_size: int, microbatches: int, parameters: int, engine: str) -> str:
    """What a person reads instead of a traceback. `parameters`: how many numbers the model has."""
    samples = -(-batch_size // microbatches)
    return (
        f"worker {rank} is out of memory: {summary(error)}. Its engine ({engine}) computes a microbatch of {samples:,} "
        f"samples at once (train.batch_size = {batch_size:,} in train.microbatches = {microbatches:,}) with "
        f"{4 * parameters:,} bytes of parameters. Raise train.microbatches, which cuts the same batch into smaller "
        f"pieces; or lower train.batch_size, or start fewer workers on this host (cluster.workers)."
    )
