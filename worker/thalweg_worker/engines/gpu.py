"""A worker's GPU, before any framework starts on it. Knows no framework.

Ray shows a worker the GPU that it gave it, and no other (CUDA_VISIBLE_DEVICES); so it is device 0 for each framework.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass

from thalweg_proto.errors import WorkerError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Card:
    """A device as a person knows it: its name, e.g. "NVIDIA H100 80GB HBM3", and the bytes of its memory, of which a
    framework may have been given less."""

    name: str
    memory_bytes: int


def prepare(gpus: float, variables: MutableMapping[str, str] = os.environ) -> None:
    """Says what has to be said before a framework is imported. `gpus`: 1, or a share of one; 0: none."""
    if not gpus:
        return
    # With any other workspace products may have other bits from run to run: "Results reproducibility" of cuBLAS.
    variables.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    variables.setdefault("JAX_PLATFORMS", "cuda,cpu")
    # Without it XLA adds with atomics where that is quicker.
    flags = variables.get("XLA_FLAGS", "")
    if "xla_gpu_deterministic_ops" not in flags:
        variables["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    if gpus < 1:
        # JAX takes three quarters of the memory when it starts, and would leave none to the workers beside it.
        variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def no_gpu(framework: str, found: str) -> WorkerError:
    """Of a framework, with its version, that finds none: why, as it `found`."""
    visible = os.environ.get(VISIBLE)
    given = "" if visible is None else f"Ray gave this worker {f'GPU {visible}' if visible else 'none'}, and "
    return WorkerError(
        f"no GPU to compute on: {given}{framework} finds none ({found}). Install a build of it for CUDA, and a driver "
        f"that nvidia-smi can talk to, on each host with GPUs; or set cluster.gpus_per_worker = 0"
    )


def left_behind(error: BaseException) -> str:
    """What to do where a model computes with tensors of two devices; "": it does not.

    Before the start nobody can tell: the model was tried on the CPU, where all of it was.
    """
    if not isinstance(error, RuntimeError) or "same device" not in str(error):
        return ""
    return (
        "the model was moved to the worker's GPU, and a tensor of it stayed behind: only parameters and buffers move. "
        "Make it a buffer (register_buffer), or make it where the input is (device=x.device)"
    )
