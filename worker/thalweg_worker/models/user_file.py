"""A user's Python file as a value that travels, and how it is run.

Rules:

- The file stands alone: it imports installed packages, nothing beside it. So its text is all that another
  host needs, and each worker runs the same text although the file is not there, or has changed since.
- It runs as a module of its own name, which no `import` finds by chance and which hides no other module.
- Tracebacks show the lines that ran, under the user's file name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job.kinds import nearest
from thalweg_worker.models.tracebacks import indented, summary, user_traceback


@dataclass(frozen=True, kw_only=True)
class UserFile:
    """path: absolute, as it was where the job was read; text: what it held then; key: of the job that names it."""

    path: str
    text: str
    key: str = "model.use"

    @classmethod
    def read(cls, path: Path, key: str = "model.use") -> UserFile:
        """The file at `path`, decoded as Python does (PEP 263). Raises InputError where it cannot be read."""
        path = path.absolute()
        field = f"{key} ({path.name})"
        try:
            return cls(path=str(path), text=importlib.util.decode_source(path.read_bytes()), key=key)
        except OSError as error:
            raise InputError([Problem(field, f"a file at {path}", error.strerror or str(error))]) from None
        except (SyntaxError, UnicodeDecodeError) as error:
            raise InputError([Problem(field, "Python source", summary(error))]) from None

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
        digest = hashlib.sha256(f"{self.path}\0{self.text}".encode()).hexdigest()
        module = ModuleType(f"thalweg_user_model_{digest[:16]}")
        module.__file__ = self.path
        # An entry without a modification time is never checked against the disk.
        linecache.cache[self.path] = (len(self.text), None, self.text.splitlines(True), self.path)
        sys.modules[module.__name__] = module  # dataclasses and type hints look their module up
        try:
            exec(compile(self.text, self.path, "exec", dont_inherit=True), vars(module))
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
        return f"\n{name} lies beside the file, but a user's file stands alone: workers get its text only"
