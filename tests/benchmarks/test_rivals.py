"""The rivals do the same arithmetic: what is compared is the way, not the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.benchmarks.launch import run_rival
from tests.benchmarks.rivals.common import initial_weights
from tests.benchmarks.workload import write_data

HIDDEN, BATCH, WORKERS, STEPS, ROWS = 32, 16, 2, 6, 500
RIVALS = ("plain_numpy", "ddp", "ray_parameter_server", "ray_numpy_weights")


@pytest.mark.compare
def test_rivals_end_in_the_same_weights(tmp_path: Path) -> None:
    """Given the same rows, all rivals end in the same weights up to rounding, far from where they began."""
    pytest.importorskip("torch")
    write_data(tmp_path, rows=ROWS)
    rows = np.random.default_rng(1).integers(ROWS, size=(STEPS, WORKERS, BATCH))
    np.save(tmp_path / "rows.npy", rows)
    ends = {}
    for rival in RIVALS:
        options = {"hidden": HIDDEN, "batch": BATCH, "workers": WORKERS, "warmup_steps": 1, "steps": STEPS - 1}
        places = {"rows": tmp_path / "rows.npy", "weights_out": tmp_path / f"{rival}.npz"}
        run_rival(rival, {"data": tmp_path, **options, **places, "learning_rate": 0.1})
        with np.load(tmp_path / f"{rival}.npz") as file:
            ends[rival] = [file[str(i)] for i in range(6)]
    for i, start in enumerate(initial_weights(HIDDEN, seed=0)):
        plain = ends["plain_numpy"][i]
        assert np.max(np.abs(plain - start)) > 0.01
        for rival in RIVALS[1:]:
            np.testing.assert_allclose(ends[rival][i], plain, rtol=0, atol=1e-5, err_msg=f"{rival}, array {i}")
