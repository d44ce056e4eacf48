"""A user's Python file as a value that travels, and how it is run.

Rules:

- It may import installed packages, and modules and packages beside it (proto's `job.beside`). Their texts travel with
  its own: that is all that another host needs, and each worker runs the same texts although the files are not there, or
  have changed since.
- It runs as a module of its own name, which no `import` finds by chance and which hides no other module; so do those
  beside it.
- Tracebacks show the lines that ran, under the user's file name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.beside import modules_beside
from thalweg_proto.job.kinds import nearest
from thalweg_worker.models.tracebacks import indented, summary, user_traceback
from thalweg_worker.models.user_modules import UserModules, run


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """
    path:   absolute, as it was where the job was read
    source: what it held then
    key:    of the job that names it
    beside: the source of each module beside it that it imports, by its path from there: "net/layers.py"
    """

    path: str
    source: bytes
    key: str = "model.use"
    beside: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, key: str = "model.use") -> UserFile:
        """The file at `path`, and what it imports from beside it. Raises InputError where one cannot be read, or
        decoded as Python does (PEP 263)."""
        path = path.absolute()
        name = f"{key} ({path.name})"
        try:
            source = path.read_bytes()
        except OSError as error:
            raise InputError([Problem(name, f"a file at {path}", error.strerror or str(error))]) from None
        beside = modules_beside(path, source, name)
        try:
            where = name
            importlib.util.decode_source(source)
            for part, data in beside.items():
                where = f"{name}: {part}"
                importlib.util.decode_source(data)
        except (SyntaxError, UnicodeDecodeError) as error:
            raise InputError([Problem(where, "Python source", summary(error))]) from None
        return cls(path=str(path), source=source, key=key, beside=beside)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    def function(self, name: str) -> Callable[..., Any]:
        """Runs the file and returns its function `name`.

        Raises InputError where the file raises, with the user's part of the traceback, or has no such
        function.
        """
        module = self._run()
        found = getattr(module, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]  # a user's module is untyped
        functions = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__ and key[0] != "_"
        ]
        raise InputError(
            [
                Problem(
                    f"{self.key} ({self.name})",
                    f"a function {name}",
                    f"functions {', '.join(functions)}" if functions else "no function",
                    nearest(name, functions),
                )
            ]
        )

    def _run(self) -> ModuleType:
        digest = hashlib.sha256(repr((self.path, self.source, sorted(self.beside.items()))).encode()).hexdigest()
        module = ModuleType(f"thalweg_user_model_{digest[:16]}")
        module.__file__ = self.path
        if self.beside:
            beside = UserModules(f"{module.__name__}_beside", str(Path(self.path).parent), self.beside)
            vars(module)["__builtins__"] = beside.install()
        sys.modules[module.__name__] = module  # dataclasses and type hints look their module up
        try:
            run(importlib.util.decode_source(self.source), self.path, module)
        except (Exception, SystemExit) as error:
            del sys.modules[module.__name__]
            problem = Problem(
                f"{self.key} ({self.name})",
                "a file that imports",
                summary(error),
                indented(user_traceback(error) + self._beside(error)),
            )
            raise InputError([problem]) from None
        return module

    def _beside(self, error: BaseException) -> str:
        name = (getattr(error, "name", None) or "").partition(".")[0]
        folder = Path(self.path).parent
        if not isinstance(error, ModuleNotFoundError) or not (
            (folder / f"{name}.py").exists() or (folder / name).is_dir()
        ):
            return ""
        return f"\n{name} lies beside the file, but workers get only what an import statement there names"
