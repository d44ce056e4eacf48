"""What belongs to a file or folder that a job names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thalweg_proto.errors import InputError
from thalweg_proto.job import beside
from thalweg_proto.job.beside import modules_beside, tables_in


def laid(folder: Path, **texts: str) -> Path:
    """Files by name, with "_in_" for "/", "init" for "__init__" and no ending."""
    for name, text in texts.items():
        path = folder / f"{name.replace('_in_', '/').replace('init', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "mine.py"


def found(file: Path) -> list[str]:
    return [*modules_beside(file, file.read_bytes(), "model.use (mine.py)")]


def test_what_is_imported_from_beside_the_file_belongs_to_it_and_what_that_imports(tmp_path):
    """Modules and whole packages, wherever the import stands; nothing that is not imported, or is installed."""
    file = laid(
        tmp_path,
        mine="import numpy, helpers\ndef build():\n    from net.deep import layer as other\n",
        helpers="import far.away\n",
        far_in_away="",
        net_in_one="",
        net_in_deep_in_two="from . import three\n",
        unused="",
        three="",
    )
    (tmp_path / "net" / "__init__.py").touch()
    (tmp_path / "net" / "data.csv").touch()
    assert found(file) == ["far/away.py", "helpers.py", "net/__init__.py", "net/deep/two.py", "net/one.py"]


def test_a_circle_of_imports_ends_and_has_the_file_itself(tmp_path):
    """Which a module beside it may import, as of a script; its own name means another module to the file itself."""
    assert found(laid(tmp_path, mine="import helpers, mine\n", helpers="import mine, helpers\n")) == [
        "helpers.py", "mine.py",
    ]  # fmt: skip


def test_what_is_shared_with_the_engine_is_what_is_installed(tmp_path):
    """And what is built into Python, and a folder without an __init__.py that has the name of an installed package."""
    file = laid(
        tmp_path,
        mine="import sys, numpy, thalweg_worker, pytest",
        sys="",
        numpy="",
        thalweg_worker="",
        pytest_in_a="",
    )
    assert found(file) == []
    (tmp_path / "pytest" / "__init__.py").touch()
    assert found(file) == ["pytest/__init__.py", "pytest/a.py"]


def test_a_folder_that_python_would_find_from_here_is_beside_the_file_all_the_same(tmp_path, monkeypatch):
    """As where the command was started in the folder of the job, by `python -m`."""
    file = laid(tmp_path, mine="import net", net_in_a="")
    monkeypatch.syspath_prepend(tmp_path)
    assert found(file) == ["net/a.py"]
    laid(tmp_path / "other", net_in_b="")
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert found(file) == []


def test_hidden_folders_caches_environments_and_runs_are_left_out(tmp_path):
    """Whatever lies in a package, only what an import could mean."""
    file = laid(tmp_path, mine="import net", net_in_init="", net_in_right="")
    skipped = (".git", "__pycache__", ".venv", "venv", "node_modules", "run", "not a name")
    for name in skipped:
        laid(tmp_path / "net" / name, inner="")
    (tmp_path / "net" / "venv" / "pyvenv.cfg").touch()
    for name in ("job.toml", "summary.json"):
        (tmp_path / "net" / "run" / name).touch()
    (tmp_path / "net" / "not-a-name.py").touch()
    assert found(file) == ["net/__init__.py", "net/right.py"]


def test_a_link_may_not_lead_out_of_a_package_nor_round_in_it(tmp_path):
    """What the job, or an import, names may be one."""
    laid(tmp_path / "elsewhere", secret="", whole_in_init="")
    file = laid(tmp_path / "here", mine="import net", net_in_init="", net_in_a="")
    (tmp_path / "here" / "net" / "b.py").symlink_to("a.py")
    assert "net/b.py" in found(file)
    for there, link in (("../../elsewhere/secret.py", "c.py"), ("../../elsewhere/whole", "c"), ("..", "c"), (".", "c")):
        path = tmp_path / "here" / "net" / link
        path.symlink_to(there)
        with pytest.raises(InputError, match=r"expected a link that stays in .*/here/net; found one to /"):
            found(file)
        path.unlink()
    file.write_text("import whole")
    (tmp_path / "here" / "whole").symlink_to("../elsewhere/whole")
    assert found(file) == ["whole/__init__.py"]


def test_modules_that_are_too_large_are_named(tmp_path, monkeypatch):
    """With the size of all, the limit and the largest."""
    monkeypatch.setattr(beside, "SOURCE_BYTES_MAX", 1 << 20)
    file = laid(tmp_path, mine="import a, b", a="#" * (1 << 20), b="# 5")
    with pytest.raises(InputError) as caught:
        found(file)
    assert "at most 1 MiB of modules beside it; found 1,048,576 bytes" not in str(caught.value)
    assert "at most 1 MiB of modules beside it; found 1,048,579 bytes, of which a.py has 1,048,576" in str(caught.value)


@pytest.mark.parametrize("text", ["def build(", "\0", "# coding: nonsense\nimport a", "x = " + "(" * 300 + ")" * 300])
def test_what_is_no_python_has_no_imports(text, tmp_path):
    """Running it tells why."""
    assert found(laid(tmp_path, mine=text, a="")) == []


def test_a_module_that_cannot_be_read_is_named(tmp_path):
    """As whoever runs it would find it."""
    file = laid(tmp_path, mine="import net", net_in_init="")
    os.mkfifo(tmp_path / "net" / "pipe")
    (tmp_path / "net" / "gone.py").symlink_to("nothing.py")
    with pytest.raises(InputError, match=r"model\.use \(mine\.py\): net/gone\.py: expected a file that can be read"):
        found(file)


def test_tables_of_a_folder_come_by_name_without_hidden_ones(tmp_path):
    """A folder without any is refused, and a link out of it."""
    for name in ("b.parquet", "a 1.parquet", ".c.parquet", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.parquet").symlink_to("b.parquet")
    assert [path.name for path in tables_in(tmp_path, "data.train")] == ["a 1.parquet", "b.parquet", "d.parquet"]
    (tmp_path / "e.parquet").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="a link that stays in"):
        tables_in(tmp_path, "data.train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"a folder with \.parquet files; found none among 0 files"):
        tables_in(tmp_path / "empty", "data.train")
