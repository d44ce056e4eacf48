"""`thalweg export`: the weights of a run as a file that a user's own framework reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from thalweg_cluster.checkpoints import write_whole
from thalweg_cluster.launch.trained import Trained, read_trained
from thalweg_cluster.reporting.files import why_not_writable
from thalweg_proto.errors import InputError, Problem, StorageError, attempt
from thalweg_worker.datasets import load_dataset
from thalweg_worker.engines import not_installed, weights_file

FORMS = {"torch": "weights.pt", "jax": "weights.jax.npz", "npz": "weights.npz"}
"""What `--to` takes, and what the file is called in the run's folder."""
OF_NUMPY = ("numpy", "emulated")
"""Engines whose parameters are a dict by name, which any framework has."""


def export(folder: Path, form: str, out: Path | None, *, force: bool) -> tuple[Trained, Path]:
    """Writes the weights of the run in `folder`; what they are, and where they are now.

    form:  one of FORMS
    out:   the file; None: the one of the form's name in `folder`
    force: whether a file that is there may be replaced

    Raises InputError with all that is wrong, StorageError where the storage fails.
    """
    file = out or folder / FORMS[form]
    problems: list[Problem] = []
    trained = attempt(problems, lambda: read_trained(folder))
    if trained is not None:  # else there is no folder of a run, and so nowhere to write to
        problems += check_form(trained.job.cluster.engine, form)
    if trained is not None or out is not None:
        problems += check_out(file, force=force)
    if trained is None or problems:
        raise InputError(problems)
    data = exported(trained, form)
    try:
        write_whole(file, data)
    except OSError as error:
        expected = f"room for {len(data):,} bytes"
        raise StorageError(f"{file}: expected {expected}; found {error.strerror or error}") from error
    return trained, file


def exported(trained: Trained, form: str) -> bytes:
    """The contents of the file. Where the names are those of the user's model, that is built anew, which takes the
    shape of the data: InputError where the data, or the model's file, is not what it was."""
    job = trained.job
    if form != job.cluster.engine:
        return weights_file(form, trained.parameters)
    # What is held out changes nothing in the shape.
    loaded = load_dataset(replace(job.data, eval=0.0), job.seed)
    problems = list(loaded.problems)
    model = None
    if loaded.spec is not None and not problems:
        spec = loaded.spec
        model = attempt(problems, lambda: trained.model(spec))
    if problems:
        *others, last = problems
        hints = (last.hint, "for --to npz neither data nor model need be there")
        raise InputError([*others, replace(last, hint="\n    ".join(filter(None, hints)))])
    return weights_file(form, trained.parameters, model)


def how_to_load(trained: Trained, form: str, file: Path) -> str:
    """What a person types to have the weights, in Python."""
    if form == "npz":
        return f'numpy.load("{file}")  # an array by name'
    if form == "jax":
        return (
            f'saved = numpy.load("{file}")\n'
            "params = jax.tree_util.tree_map_with_path(\n"
            "    lambda path, _: saved[jax.tree_util.keystr(path)], model.init(key)\n"
            ")"
        )
    load = f'torch.load("{file}", weights_only=True)'
    return f"module.load_state_dict({load})" if trained.job.cluster.engine == form else f"{load}  # a tensor by name"


def check_form(engine: str, form: str) -> list[Problem]:
    """Whether the weights of a job with this engine can be had in a form."""
    if form == "npz":
        return []
    if engine not in (form, *OF_NUMPY):
        hint = f"--to {engine} gives them as the job's model has them, --to npz as arrays by name"
        return [Problem("--to", f"{engine} or npz, for a job whose engine is {engine}", form, hint)]
    # The tree of a dict is known without JAX.
    return not_installed(form, "--to", "a framework") if form in (engine, "torch") else []


def check_out(file: Path, *, force: bool) -> list[Problem]:
    """Whether the file can be written; writes nothing."""
    if file.is_dir():
        return [Problem("--out", "a file", f"{file}, which is a folder")]
    if file.exists() and not force:
        return [Problem("--out", "a file that is not there yet", f"{file}, which is", "to replace it: --force")]
    why = why_not_writable(file.absolute().parent)
    return [] if why is None else [Problem("--out", "a file in a folder that can be written", why)]
