"""What is said before a framework starts on a GPU, and where it finds none."""

from __future__ import annotations

import pytest

from thalweg_worker.engines.gpu import left_behind, no_gpu, prepare


def test_without_a_gpu_nothing_is_said():
    variables: dict[str, str] = {}
    prepare(0.0, variables)
    assert variables == {}


@pytest.mark.parametrize(("gpus", "shared"), [(1.0, False), (0.5, True)])
def test_with_one_frameworks_are_told_to_repeat_their_bits_and_to_share(gpus, shared):
    """JAX would take three quarters of the memory, if there are others or not."""
    variables = {"XLA_FLAGS": "--xla_dump_to=/tmp/x"}
    prepare(gpus, variables)
    assert variables["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert variables["JAX_PLATFORMS"] == "cuda,cpu"
    assert variables["XLA_FLAGS"] == "--xla_dump_to=/tmp/x --xla_gpu_deterministic_ops=true"
    assert ("XLA_PYTHON_CLIENT_PREALLOCATE" in variables) == shared


def test_what_a_person_has_set_stays():
    """All of it."""
    own = {
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "JAX_PLATFORMS": "cuda",
        "XLA_FLAGS": "--xla_gpu_deterministic_ops=false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
    }
    variables = dict(own)
    prepare(0.5, variables)
    assert variables == own


def test_a_framework_that_finds_none_is_named_with_what_ray_gave(monkeypatch):
    """And what to do."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    said = str(no_gpu("PyTorch 2.13.0+cpu", "it is built without CUDA"))
    assert "Ray gave this worker GPU 3, and PyTorch 2.13.0+cpu finds none (it is built" in said
    assert "cluster.gpus_per_worker = 0" in said
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert str(no_gpu("JAX 1", "why")).startswith("no GPU to compute on: JAX 1 finds none (why). Install")


def test_a_tensor_that_stayed_on_the_cpu_is_told_with_what_to_do():
    """In the words of PyTorch 2.13; other errors are told as they are."""
    text = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    assert "register_buffer" in left_behind(RuntimeError(text))
    assert left_behind(RuntimeError("shapes do not match")) == ""
    assert left_behind(ValueError("on the same device")) == ""
