"""What a worker says that runs out of memory, whichever framework its model is of."""

from __future__ import annotations

from thalweg_worker.models.tracebacks import summary

SIGNS = ("can't allocate memory", "RESOURCE_EXHAUSTED", "out of memory", "ALLOC_FAILED")
"""In the words of PyTorch on the CPU, of XLA, of CUDA, and of cuBLAS and cuDNN; each of them raises a RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a device did not suffice (NumPy: MemoryError)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def advice(
    error: BaseException,
    *,
    rank: int,
    batch_size: int,
    microbatches: int,
    parameters: int,
    engine: str,
    gpus: float = 0.0,
) -> str:
    """What a person reads instead of a traceback.

    parameters: how many numbers the model has; gpus: of the worker: 1, or a share of one; 0: none
    """
    samples = -(-batch_size // microbatches)
    fewer = "start fewer workers on this host (cluster.workers)"
    if gpus == 1:
        fewer = "take a larger GPU"
    elif gpus:
        fewer = f"let fewer workers share a GPU (cluster.gpus_per_worker, now {gpus:g})"
    return (
        f"worker {rank} is out of memory: {summary(error)}. Its engine ({engine}) computes a microbatch of {samples:,} "
        f"samples at once (train.batch_size = {batch_size:,} in train.microbatches = {microbatches:,}) with "
        f"{4 * parameters:,} bytes of parameters. Raise train.microbatches, which cuts the same batch into smaller "
        f"pieces; or lower train.batch_size, or {fewer}."
    )
