"""The modules beside a user's file, imported by it alone.

Rules:

- They come from their texts, on whatever host: nothing is looked for on a disk.
- `import helpers` in the user's file, or in a module beside it, means its own `helpers`. Everybody else's means what it
  meant before: a process may have two users' files, each with `helpers` of its own. So the user's modules have other
  names in `sys.modules`, and an `import` of their own.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any


class UserModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules whose texts are known, under the names ROOT.helpers, ROOT.net.layers, ..."""

    def __init__(self, root: str, folder: str, sources: Mapping[str, bytes]) -> None:
        """
        root:    a name that no other module has
        folder:  the one in which the user's file lies, or lay
        sources: by the path from there
        """
        self._root = root
        self._folder = folder
        self._sources = sources
        self._modules = {_dotted(path): path for path in sources}
        parents = (parent.as_posix() for path in sources for parent in PurePosixPath(path).parents)
        self._folders = {parent.replace("/", ".") for parent in parents if parent != "."}
        self._names = {name.partition(".")[0] for name in (*self._modules, *self._folders)}

    def install(self) -> dict[str, Any]:
        """Makes them known to Python; what a user's file has as `__builtins__`."""
        if self._root not in sys.modules:
            package = ModuleType(self._root)
            package.__path__ = []
            sys.modules[self._root] = package
            sys.meta_path.insert(0, self)
        return {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """In place of `__import__`: `import a.b` gives a, `from a.b import c` gives a.b."""
        first = name.partition(".")[0]
        if level or first not in self._names:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        own = f"{self._root}.{name}"
        if fromlist:
            return builtins.__import__(own, globals, locals, fromlist, 0)
        importlib.import_module(own)
        return sys.modules[f"{self._root}.{first}"]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Python's question for a module that is not imported yet."""
        root, _, name = fullname.partition(".")
        if root != self._root or not (name in self._modules or name in self._folders):
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=name in self._folders)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        path = self._modules.get(module.__name__.partition(".")[2])
        if path is None:
            return  # a folder without an __init__.py
        vars(module)["__builtins__"] = self.install()
        module.__file__ = f"{self._folder}/{path}"
        run(importlib.util.decode_source(self._sources[path]), module.__file__, module)


def run(text: str, path: str, module: ModuleType) -> None:
    """Runs source in a module. Tracebacks show these lines, under the name `path`. Raises whatever it raises."""
    # An entry without a modification time is never checked against the disk.
    linecache.cache[path] = (len(text), None, text.splitlines(True), path)
    exec(compile(text, path, "exec", dont_inherit=True), vars(module))


def _dotted(path: str) -> str:
    """ "net/layers.py" -> "net.layers", "net/__init__.py" -> "net"."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
