"""The user's own model: from a file, by name, on any host; and what a wrong file is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch, DataSpec
from thalweg_worker.models import ModelSource, build_model, check_model, initial_parameters

SPEC = DataSpec(input_shape=(4,), task="classification", classes=3)

GOOD = dedent(
    '''
    from __future__ import annotations

    from dataclasses import dataclass

    import numpy as np
    from thalweg_worker import autodiff as ad


    @dataclass(frozen=True)
    class Net:
        """A frozen dataclass looks its module up in sys.modules."""

        features: int
        classes: int
        scale: float

        def init(self, rng):
            return {"W": self.scale * rng.standard_normal((self.features, self.classes), dtype=np.float32)}

        def loss(self, params, batch):
            return ad.softmax_cross_entropy(batch.x @ params["W"], batch.y)


    def build(data_spec, *, scale=1.0):
        return Net(data_spec.input_shape[0], data_spec.classes, scale)
    '''
)


def written(folder: Path, text: str, name: str = "my_model.py") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def problem_of(folder: Path, use: str = "my_model.py:build", **options: Any) -> Problem:
    """The one problem that building raises."""
    with pytest.raises(InputError) as caught:
        build_model(use, options, SPEC, folder=folder)
    (problem,) = caught.value.problems
    return problem


def test_a_users_model_is_built_with_its_options(tmp_path: Path) -> None:
    """The file is found relative to the folder, gets the other keys of [model], and passes the check."""
    written(tmp_path, GOOD)
    model = build_model("my_model.py:build", {"scale": 0.5}, SPEC, folder=tmp_path)
    assert initial_parameters(model, 0)["W"].shape == (4, 3)
    batch = Batch(np.ones((2, 4), dtype=np.float32), np.array([0, 2]), np.zeros(3, dtype=np.uint64))
    assert check_model(model, SPEC, batch, np.random.default_rng(0)) == []


def test_the_job_files_absolute_path_works_too(tmp_path: Path) -> None:
    """The job reader hands on an absolute path, whatever the folder is."""
    path = written(tmp_path, GOOD)
    assert build_model(f"{path}:build", {}, SPEC, folder=Path("/nowhere")) is not None


def test_another_host_builds_the_model_from_the_text(tmp_path: Path) -> None:
    """Pickled into another process, with the file gone, the source builds the same model with the same start."""
    path = written(tmp_path, GOOD)
    source = ModelSource.read("my_model.py:build", {"scale": 0.5}, folder=tmp_path)
    here = initial_parameters(source.build(SPEC), 7)["W"]
    path.unlink()
    program = (
        "import pickle, sys\n"
        "from thalweg_worker.models import initial_parameters\n"
        "source, spec = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.buffer.write(initial_parameters(source.build(spec), 7)['W'].tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps((source, SPEC)), capture_output=True, check=True
    )
    assert done.stdout == here.tobytes()


def test_a_users_file_hides_no_module(tmp_path: Path) -> None:
    """A file named like a module of the standard library is not imported in its place."""
    written(tmp_path, GOOD, name="json.py")
    before = set(sys.modules)
    build_model("json.py:build", {}, SPEC, folder=tmp_path)
    import json

    assert json.loads("[1]") == [1]
    assert all(name.startswith("thalweg_user_model_") for name in set(sys.modules) - before)


def test_the_users_list_options_are_not_shared(tmp_path: Path) -> None:
    """A build that changes its options in place leaves the job's alone."""
    written(tmp_path, GOOD + "\n\ndef greedy(data_spec, sizes):\n    sizes.clear()\n    return build(data_spec)\n")
    source = ModelSource.read("my_model.py:greedy", {"sizes": [1, 2]}, folder=tmp_path)
    source.build(SPEC)
    assert source.options == {"sizes": [1, 2]}


def test_tracebacks_show_the_text_that_ran(tmp_path: Path) -> None:
    """When the file has changed on disk since, a traceback still shows the line that raised."""
    path = written(tmp_path, "def build(data_spec):\n    return 1 / 0  # here\n")
    source = ModelSource.read("my_model.py:build", {}, folder=tmp_path)
    path.write_text("# something else\n" * 9)
    with pytest.raises(InputError) as caught:
        source.build(SPEC)
    (problem,) = caught.value.problems
    assert f'File "{path}", line 2, in build' in problem.hint
    assert "return 1 / 0  # here" in problem.hint


# a wrong `use`


@pytest.mark.parametrize(
    ("use", "hint"), [("mpl", '"mlp"'), ("my_model.py", ""), ("my_model.txt:build", ""), ("a.py:not a name", "")]
)
def test_an_unknown_model_is_named_with_the_nearest_one(use: str, hint: str, tmp_path: Path) -> None:
    """What is neither built in nor FILE.py:FUNCTION is refused."""
    problem = problem_of(tmp_path, use)
    assert problem.field == "model.use"
    assert '"linear", "mlp", "convnet" or "FILE.py:FUNCTION"' in problem.expected
    assert use in problem.found
    assert hint in problem.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The problem shows the absolute path that was tried."""
    problem = problem_of(tmp_path)
    assert problem.field == "model.use (my_model.py)"
    assert str(tmp_path / "my_model.py") in problem.expected
    assert problem.found == "No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder that is named like a Python file is refused."""
    (tmp_path / "my_model.py").mkdir()
    assert problem_of(tmp_path).found == "Is a directory"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 give a problem, not a traceback of ours."""
    (tmp_path / "my_model.py").write_bytes(b"\xff\xfe\x00")
    problem = problem_of(tmp_path)
    assert problem.expected == "Python source"
    assert problem.found.startswith("SyntaxError")


# a file that does not import


def test_a_file_that_raises_shows_its_traceback(tmp_path: Path) -> None:
    """The hint holds the user's frames only, with file name, line and code."""
    written(tmp_path, "def helper():\n    raise ValueError('no such layer')\n\n\nhelper()\n")
    problem = problem_of(tmp_path)
    assert problem.field == "model.use (my_model.py)"
    assert problem.expected == "a file that imports"
    assert problem.found == "ValueError: no such layer"
    assert "my_model.py" in problem.hint
    assert "line 2, in helper" in problem.hint
    assert "raise ValueError('no such layer')" in problem.hint
    assert "user_file.py" not in problem.hint


def test_frames_of_installed_packages_are_left_out(tmp_path: Path) -> None:
    """Where NumPy raises, the traceback ends at the user's call."""
    written(tmp_path, "import numpy as np\n\nnp.stack([])\n")
    problem = problem_of(tmp_path)
    assert "np.stack([])" in problem.hint
    assert "site-packages" not in problem.hint


def test_a_chain_of_exceptions_is_kept(tmp_path: Path) -> None:
    """The cause stands above what it caused, each with the user's frames."""
    written(tmp_path, "try:\n    {}['x']\nexcept KeyError as error:\n    raise RuntimeError('no x') from error\n")
    hint = problem_of(tmp_path).hint
    assert hint.index("KeyError: 'x'") < hint.index("direct cause") < hint.index("RuntimeError: no x")


def test_a_syntax_error_shows_the_line(tmp_path: Path) -> None:
    """File, line and a mark, without a stack."""
    written(tmp_path, "def build(data_spec)\n    return 1\n")
    problem = problem_of(tmp_path)
    assert problem.found.startswith("SyntaxError")
    assert "line 1" in problem.hint
    assert "def build(data_spec)" in problem.hint
    assert "Traceback" not in problem.hint


def test_a_file_that_exits_is_a_file_that_does_not_import(tmp_path: Path) -> None:
    """sys.exit() at import does not end the run silently."""
    written(tmp_path, "import sys\n\nsys.exit(4)\n")
    assert problem_of(tmp_path).found == "SystemExit: 4"


def test_a_neighbour_that_no_import_statement_names_is_missed_and_the_hint_says_so(tmp_path: Path) -> None:
    """It is on this host only."""
    written(tmp_path, "x = 1\n", name="my_own_layers.py")
    written(tmp_path, "import importlib\n\nimportlib.import_module('my_own_layers')\n")
    problem = problem_of(tmp_path)
    assert problem.found == "ModuleNotFoundError: No module named 'my_own_layers'"
    assert "lies beside the file, but workers get only what an import statement there names" in problem.hint


def test_a_module_that_is_not_installed_is_no_neighbour(tmp_path: Path) -> None:
    """Without such a file beside it, only Python's own message is given."""
    written(tmp_path, "import my_own_layers\n")
    assert "lies beside" not in problem_of(tmp_path).hint


# a function that does not fit


def test_a_missing_function_is_named_with_those_there_are(tmp_path: Path) -> None:
    """Imported names and private ones do not count."""
    written(tmp_path, "from math import sqrt\n\n\ndef built(data_spec): ...\n\n\ndef _own(): ...\n")
    problem = problem_of(tmp_path)
    assert problem.expected == "a function build"
    assert problem.found == "functions built"
    assert '"built"' in problem.hint


def test_a_file_without_functions_says_so(tmp_path: Path) -> None:
    """A number named build is no function."""
    written(tmp_path, "build = 3\n")
    assert problem_of(tmp_path).found == "no function"


def test_wrong_and_missing_options_are_reported_together(tmp_path: Path) -> None:
    """An option that build does not take, with the nearest one; and one that it needs."""
    written(tmp_path, "def build(data_spec, width, *, depth=2): ...\n")
    with pytest.raises(InputError) as caught:
        build_model("my_model.py:build", {"dept": 3}, SPEC, folder=tmp_path)
    wrong, missing = caught.value.problems
    assert (wrong.field, wrong.found, wrong.hint) == ("model.dept", "3", 'did you mean "depth"?')
    assert (missing.field, missing.found) == ("model.width", "nothing")


@pytest.mark.parametrize("given", ["widht", "size"])
def test_a_misspelt_option_is_not_missed_as_well(tmp_path: Path, given: str) -> None:
    """The option that it was meant for, or may have been, is no second mistake."""
    written(tmp_path, "def build(data_spec, width): ...\n")
    assert problem_of(tmp_path, **{given: 3}).field == f"model.{given}"


def test_any_option_reaches_a_build_that_takes_all(tmp_path: Path) -> None:
    """**options is taken at its word."""
    written(tmp_path, "def build(data_spec, **options):\n    return options\n")
    options: Any = build_model("my_model.py:build", {"depth": 3}, SPEC, folder=tmp_path)
    assert options == {"depth": 3}


def test_a_build_that_raises_shows_its_traceback(tmp_path: Path) -> None:
    """The problem names file and function."""
    written(tmp_path, "def build(data_spec):\n    return data_spec.colour\n")
    problem = problem_of(tmp_path)
    assert problem.field == "model.use (my_model.py:build)"
    assert "'DataSpec' object has no attribute 'colour'" in problem.found
    assert "return data_spec.colour" in problem.hint


def test_a_build_without_arguments_is_told(tmp_path: Path) -> None:
    """It must take the data spec; Python's message says what it takes."""
    written(tmp_path, "def build():\n    return None\n")
    problem = problem_of(tmp_path)
    assert "takes 0 positional arguments" in problem.found
    assert "Traceback" not in problem.hint


def test_a_wrong_option_of_a_built_in_model_passes_through(tmp_path: Path) -> None:
    """A user's build that wraps one of ours reports our problems as they are."""
    written(
        tmp_path,
        "from thalweg_worker.models import mlp\n\n\ndef build(spec, **kw):\n    return mlp.build(spec, **kw)\n",
    )
    assert problem_of(tmp_path, hidden=[-1]).field == "model.hidden"


# what is wrong whatever the data


def check(folder: Path, use: str = "my_model.py:build", **options: Any) -> list[Problem]:
    return ModelSource.read(use, options, folder=folder).check()


def test_a_right_source_has_nothing_wrong_whatever_the_data(tmp_path: Path) -> None:
    """Built in or the user's; what is not known yet, the data, is not asked for."""
    written(tmp_path, GOOD)
    assert check(tmp_path, scale=0.5) == []
    assert check(tmp_path, "mlp", hidden=[3]) == []
    assert check(tmp_path, "convnet") == []


def test_wrong_options_are_found_without_data(tmp_path: Path) -> None:
    """Those of a built-in model by their kinds, those of the user's by what the function takes."""
    written(tmp_path, "def build(data_spec, width, *, depth=2): ...\n")
    assert [problem.field for problem in check(tmp_path, dept=3)] == ["model.dept", "model.width"]
    assert [problem.field for problem in check(tmp_path, "mlp", hidden=-1, size=3)] == ["model.hidden", "model.size"]


def test_a_file_that_does_not_import_is_found_without_data(tmp_path: Path) -> None:
    """So is a function that is not there; the function is not called."""
    written(tmp_path, "1 / 0\n")
    assert [problem.expected for problem in check(tmp_path)] == ["a file that imports"]
    written(tmp_path, "def built(data_spec): ...\n")
    assert [problem.expected for problem in check(tmp_path)] == ["a function build"]
    written(tmp_path, "def build(data_spec): 1 / 0\n")
    assert check(tmp_path) == []
