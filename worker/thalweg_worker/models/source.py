"""A model as a value that travels: what to build, with which options, and the text of the user's file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from thalweg_proto.errors import InputError, Problem, attempt
from thalweg_proto.job.kinds import function_in, nearest, one_of
from thalweg_proto.job.options import Section
from thalweg_proto.job.parsing import describe
from thalweg_worker.batch import DataSpec
from thalweg_worker.models import convnet, linear, mlp
from thalweg_worker.models.options import read_options
from thalweg_worker.models.protocol import Model
from thalweg_worker.models.user_call import call, misfits
from thalweg_worker.models.user_file import UserFile

BUILT_IN: Mapping[str, Callable[..., Model]] = {
    "linear": linear.build,
    "mlp": mlp.build,
    "convnet": convnet.build,
}
OPTIONS: Mapping[str, type[Section]] = {
    "linear": linear.LinearOptions,
    "mlp": mlp.MlpOptions,
    "convnet": convnet.ConvnetOptions,
}


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Whatever a worker needs to build the job's model, on any host; picklable.

        source = ModelSource.read("my_model.py:build", {"width": 32}, folder=Path("jobs"))  # where the job is
        model = source.build(data_spec)                                                    # where it runs

    use:     a built-in name, or the name of the function in `file`
    options: for `build`, as in the job file
    file:    the user's file; None for a built-in model
    """

    use: str
    options: Mapping[str, Any] = field(default_factory=dict)
    file: UserFile | None = None

    @classmethod
    def read(cls, use: str, options: Mapping[str, Any], *, folder: Path) -> ModelSource:
        """`use` as in the job file: a built-in name, or "FILE.py:FUNCTION" with FILE relative to `folder`.

        Raises InputError where it is neither, or the file cannot be read.
        """
        if use in BUILT_IN:
            return cls(use=use, options=options)
        named = function_in(use)
        if named is None:
            expected = one_of([*(f'"{name}"' for name in BUILT_IN), '"FILE.py:FUNCTION"'])
            raise InputError([Problem("model.use", expected, describe(use), nearest(use, [*BUILT_IN]))])
        path, function = named
        return cls(use=function, options=options, file=UserFile.read(folder / path))

    def build(self, data_spec: DataSpec) -> Model:
        """The model. Raises InputError with every wrong option, or with the traceback of the user's code."""
        options = copy.deepcopy(dict(self.options))
        if self.file is None:
            return BUILT_IN[self.use](data_spec, **options)
        return cast(Model, call(self.file, self.use, options, data_spec, table="model", returns="a model"))

    def check(self) -> list[Problem]:
        """What is wrong whatever the data: a file that does not import, a function that is not there, wrong options.

        For where the data is not known; `build` finds all this and more. Raises nothing.
        """
        if self.file is None:
            return read_options(OPTIONS[self.use], self.options)[1]
        problems: list[Problem] = []
        file = self.file
        build = attempt(problems, lambda: file.function(self.use))
        return problems if build is None else misfits(build, self.use, self.options, table="model", given=1)


def build_model(use: str, options: Mapping[str, Any], data_spec: DataSpec, *, folder: Path) -> Model:
    """The model that the job file's [model] table asks for.

    use:     "linear", "mlp", "convnet" or "FILE.py:FUNCTION", FILE relative to `folder`, that of the job file
    options: the other keys of the table

    Raises InputError as `ModelSource.read` and `ModelSource.build` do. What it returns is not checked
    further: see `check_model`.
    """
    return ModelSource.read(use, options, folder=folder).build(data_spec)
