"""Modules beside a user's file: imported by it, on any host, and by nobody else."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thalweg_proto.errors import InputError
from thalweg_worker.models import UserFile

TEXTS = {
    "mine.py": "import net.layers\n"
    "import net.deep.two as two\n"
    "from net import one as first, deep\n"
    "from net.layers import *\n"
    "import helpers, json\n"
    "def build():\n"
    "    from lazy import late\n"
    "    return [net.layers.WIDTH, two.N, first.N, WIDTH, helpers.total(), late, json.loads('3'), deep.two is two]\n",
    "helpers.py": "from net import one\nfrom dataclasses import dataclass\n@dataclass\nclass Size:\n    n: int\n"
    "def total():\n    from net.deep import two\n    return Size(one.N + two.N).n\n",
    "lazy.py": "import helpers\nlate = helpers.total() + 1\n",
    "net/__init__.py": "from .layers import WIDTH\nimport importlib\n"
    "one = importlib.import_module('.one', __package__)\n",
    "net/layers.py": "from . import deep\nWIDTH = 7\n",
    "net/one.py": "N = 1\n",
    "net/deep/two.py": "from ..one import N as _n\nN = _n + 1\n",
}


def laid(folder: Path, texts: dict[str, str] = TEXTS) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "mine.py"


def test_imports_mean_what_they_mean_to_python_although_the_files_are_gone(tmp_path):
    """Packages, relative and late imports, stars, folders without __init__.py: as Python says it of a script."""
    file = laid(tmp_path / "here")
    program = [sys.executable, "-c", "import mine; print(mine.build())"]
    said = subprocess.run(program, cwd=file.parent, capture_output=True, check=True, text=True).stdout
    read = UserFile.read(file)
    shutil.rmtree(file.parent)
    assert str(pickle.loads(pickle.dumps(read)).function("build")()) == said.strip()


def test_two_files_have_their_own_helpers_and_nobody_else_has_any(tmp_path):
    """One process may have a model and a data set from two folders, and one file before and after a change."""
    texts = {"mine.py": "import helpers\ndef build():\n    import helpers as late\n    return helpers.N, late.N\n"}
    built = []
    for n in (1, 2):
        file = laid(tmp_path / str(n), {**texts, "helpers.py": f"N = {n}\n"})
        built.append(UserFile.read(file).function("build"))
    laid(tmp_path / "2", {"helpers.py": "N = 3\n"})
    built.append(UserFile.read(file).function("build"))
    assert [build() for build in built] == [(1, 1), (2, 2), (3, 3)]
    with pytest.raises(ModuleNotFoundError):
        __import__("helpers")


def test_a_mistake_in_a_module_beside_the_file_is_shown_with_its_line(tmp_path):
    """The text that ran, under its own path, without frames of ours or Python's."""
    file = laid(tmp_path, {"mine.py": "import helpers\n", "helpers.py": "x = 1\ny = x / 0  # here\n"})
    read = UserFile.read(file)
    (tmp_path / "helpers.py").write_text("something else")
    with pytest.raises(InputError) as caught:
        read.function("build")
    (problem,) = caught.value.problems
    assert problem.found == "ZeroDivisionError: division by zero"
    assert f'File "{tmp_path}/helpers.py", line 2' in problem.hint
    assert "y = x / 0  # here" in problem.hint
    assert "user_modules.py" not in problem.hint
    assert "importlib" not in problem.hint


def test_a_module_of_bytes_that_are_no_python_source_is_named(tmp_path):
    """As the file itself would be."""
    file = laid(tmp_path, {"mine.py": "import helpers\n"})
    (tmp_path / "helpers.py").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"model\.use \(mine\.py\): helpers\.py: expected Python source"):
        UserFile.read(file)


def test_the_source_is_decoded_as_python_does_wherever_it_runs(tmp_path):
    """PEP 263: also where it is not UTF-8."""
    file = laid(tmp_path, {"mine.py": "import helpers\ndef build():\n    return helpers.SIGN\n"})
    (tmp_path / "helpers.py").write_bytes(b'# -*- coding: latin-1 -*-\nSIGN = "\xa7"\n')
    assert UserFile.read(file).function("build")() == "§"
