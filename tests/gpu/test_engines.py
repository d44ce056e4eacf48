"""Each engine on a GPU, against the same one on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.gpu.needs import gpu_for

REPOSITORY = Path(__file__).parents[2]


def computed(engine: str, device: str, folder: Path) -> dict[str, np.ndarray]:
    file = folder / f"{device}.npz"
    command = [sys.executable, "-m", "tests.gpu.engine_run", engine, device, str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(file) as found:
        return dict(found)


@pytest.mark.parametrize("engine", ["torch", "jax", "cupy"])
def test_a_gpu_computes_what_the_cpu_does(engine, tmp_path):
    """Loss, gradients and running statistics to single precision; twice the same bits; hooks when they are due (both in
    engine_run.py, which says what is computed)."""
    gpu_for(engine)
    expected, found = (computed(engine, device, tmp_path) for device in ("cpu", "gpu"))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5 * scale + 1e-8, err_msg=name)
