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
