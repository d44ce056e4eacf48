"""What a test needs that runs on a GPU; where it is not there, why the test is skipped."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

CARD = """
import sys
from thalweg_worker.engines.gpu import prepare
prepare(1.0)
from thalweg_worker.engines import card_of
print(card_of(sys.argv[1]))
"""


@cache
def why_not(engine: str) -> str:
    """Why the engine cannot compute on a GPU here; "": it can."""
    if not Path("/dev/nvidia0").exists():
        return "this machine has no NVIDIA GPU (no /dev/nvidia0); run on one where nvidia-smi shows one"
    if find_spec(engine) is None:
        return f"{engine} is not installed: pip install 'thalweg[{engine}]'"
    found = subprocess.run([sys.executable, "-c", CARD, engine], capture_output=True, text=True, check=False)
    return found.stderr.strip().splitlines()[-1] if found.returncode else ""


def gpu_for(engine: str) -> None:
    """Skips the test where the engine finds no GPU."""
    if why := why_not(engine):
        pytest.skip(why)
