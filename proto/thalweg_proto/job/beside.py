"""What belongs to a file or folder that a job names: the modules that a user's Python file imports from beside it, and
the tables of a data set's folder. Whoever runs a job and whoever ships it to another machine find the same here.

Rules:

- Beside a user's file, a name that some `import` statement begins with means a module (NAME.py) or a package (a folder
  NAME), as where Python runs the file as a script. Of a package all Python files count, whichever of them are imported.
  A folder without an __init__.py counts only where nothing that is installed has its name, as in Python.
- Modules that are there may import others from beside the file, and so on.
- Folders are only looked into where a module could be: no hidden ones, no caches, no environment (pyvenv.cfg), no run's
  own folder.
- What a job names may be a symbolic link. What is found in a folder may be one only where it stays in the folder.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from thalweg_proto.errors import InputError, Problem

SOURCE_BYTES_MAX = 16 << 20
"""Of all modules beside a user's file: each worker gets them."""
_ENGINES = ("numpy", "torch", "jax", "cupy", "thalweg_proto", "thalweg_worker", "thalweg_cluster")
"""What a model shares with who trains it is what is installed."""
_CACHES = ("__pycache__", "node_modules")


def modules_beside(file: Path, source: bytes, field: str) -> dict[str, bytes]:
    """The source of each module beside `file` that it imports, by its path from there: "helpers.py", "net/layers.py".

    source: what the file holds
    field:  what problems are named after

    What is no Python has no imports: running it tells why. InputError where a module cannot be read, lies outside of
    its folder, or all are larger than SOURCE_BYTES_MAX.
    """
    folder = file.absolute().parent
    found: dict[str, bytes] = {}
    # A file that has the name of a module imports that one, not itself.
    waiting = [(name, file.stem) for name in _imported(source)]
    done = set()
    while waiting:
        name, own = waiting.pop()
        if name == own or name in done:
            continue
        done.add(name)
        for path in _module(folder, name, field):
            relative = path.relative_to(folder).as_posix()
            found[relative] = _read(path, f"{field}: {relative}")
            waiting += [(other, "") for other in _imported(found[relative])]
        if (size := sum(map(len, found.values()))) > SOURCE_BYTES_MAX:
            largest = sorted(found, key=lambda each: -len(found[each]))[:3]
            expected = f"at most {SOURCE_BYTES_MAX >> 20} MiB of modules beside it"
            names = ", ".join(f"{each} has {len(found[each]):,}" for each in largest)
            raise InputError([Problem(field, expected, f"{size:,} bytes, of which {names}")])
    return dict(sorted(found.items()))


def tables_in(folder: Path, field: str) -> list[Path]:
    """The .parquet files of a folder, in the order of their names. No hidden ones; other files do not matter.

    InputError where there are none, or one is a link that leads out of the folder. OSError where that cannot be read.
    """
    there = list(folder.iterdir())
    files = [path for path in there if path.suffix == ".parquet" and not path.name.startswith(".")]
    if not files:
        found = f"none among {len(there)} files and folders"
        raise InputError([Problem(field, "a folder with .parquet files", found)])
    return [_within(path, folder, field) for path in sorted(files)]


def _imported(source: bytes) -> set[str]:
    """The first part of each absolute name that an import statement has, wherever it stands."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _module(folder: Path, name: str, field: str) -> Iterator[Path]:
    """The files of the module or package `name` in `folder`; none where it is not there, or is another one's name."""
    if name in sys.builtin_module_names or name in _ENGINES:
        return
    package, module = folder / name, folder / f"{name}.py"
    if (package / "__init__.py").is_file() or (
        not module.is_file() and package.is_dir() and not _installed(name, package)
    ):
        yield from _python_files(package, package, field)
    elif module.is_file():
        yield module


def _installed(name: str, package: Path) -> bool:
    """Whether `name` means anything but the folder `package`, which Python finds, too, where it was started there."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module without a spec, as __main__ may be
        return True
    if spec is None:
        return False
    places = {Path(place).resolve() for place in spec.submodule_search_locations or ()}
    return spec.origin is not None or places != {package.resolve()}


def _python_files(folder: Path, package: Path, field: str) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name.isidentifier() and path.name not in _CACHES and not _foreign(path):
                yield from _python_files(_within(path, package, field), package, field)
        elif path.suffix == ".py" and path.stem.isidentifier():
            yield _within(path, package, field)


def _foreign(folder: Path) -> bool:
    """Whether a folder is an environment of Python, or that of a run."""
    run = (folder / "job.toml").is_file() and any((folder / n).exists() for n in ("summary.json", "coordinator.json"))
    return run or (folder / "pyvenv.cfg").is_file()


def _within(path: Path, folder: Path, field: str) -> Path:
    """`path`, which lies in `folder`. InputError where it is a link that leads out of it, or round in it."""
    if not path.is_symlink():
        return path
    there, root = path.resolve(), folder.resolve()
    if root not in there.parents or there in path.parent.resolve().parents or there == path.parent.resolve():
        hint = "put a copy there in its place"
        raise InputError([Problem(f"{field}: {path}", f"a link that stays in {folder}", f"one to {there}", hint)])
    return path


def _read(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(SOURCE_BYTES_MAX + 1)
    except OSError as error:
        raise InputError([Problem(field, "a file that can be read", error.strerror or str(error))]) from None
