"""What a worker says that runs out of memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from thalweg_worker.out_of_memory import advice, is_out_of_memory


def raised(ask: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011 - which one it is, is for each framework to say
        ask()
    return found.value


def test_numpys_error_is_known() -> None:
    """The real one, of an array that no machine has room for."""
    assert is_out_of_memory(raised(lambda: np.empty(1 << 58)))


@pytest.mark.compare
def test_pytorchs_error_is_known() -> None:
    """On the CPU it is a RuntimeError."""
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(raised(lambda: torch.empty(1 << 50)))


@pytest.mark.compare
def test_jaxs_error_is_known() -> None:
    """Likewise."""
    jnp = pytest.importorskip("jax.numpy")
    assert is_out_of_memory(raised(lambda: jnp.zeros(1 << 40).block_until_ready()))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("OutOfMemoryError", "Out of memory allocating 1,048,576 bytes (allocated so far: 0 bytes)."),  # CuPy
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB"),
        ("RuntimeError", "CUDA error: out of memory"),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4398046511104 bytes."),
    ],
)
def test_those_of_gpus_are_known(kind: str, text: str) -> None:
    """By what they are called, or say; no GPU is here that could raise them."""
    assert is_out_of_memory(type(kind, (RuntimeError,), {})(text))


def test_other_errors_are_not() -> None:
    """Whatever they are about."""
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_advice_names_what_can_be_changed() -> None:
    """Rank, samples at once, the keys of the job file, bytes."""
    said = advice(MemoryError("no room"), rank=3, batch_size=100, microbatches=8, parameters=1000, engine="torch")
    assert said.startswith("worker 3 is out of memory: MemoryError: no room. Its engine (torch)")
    for part in ("13 samples", "train.batch_size = 100", "train.microbatches = 8", "4,000 bytes"):
        assert part in said


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (0.0, "start fewer workers on this host (cluster.workers)."),
        (0.25, "let fewer workers share a GPU (cluster.gpus_per_worker, now 0.25)."),
        (1.0, "take a larger GPU."),
    ],
)
def test_advice_is_about_the_memory_that_there_is_too_little_of(gpus: float, said: str) -> None:
    """Of the host, of a GPU that is shared, or of one that is not."""
    sizes = {"batch_size": 100, "microbatches": 8, "parameters": 1000}
    assert advice(MemoryError("no room"), rank=3, engine="torch", gpus=gpus, **sizes).endswith(said)
