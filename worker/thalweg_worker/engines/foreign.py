"""What the models and engines of other frameworks have in common."""

from __future__ import annotations

import hashlib

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.batch import Batch
from thalweg_worker.models import ModelSource, UserFile


def file_of(source: ModelSource, engine: str, returns: str) -> UserFile:
    """The user's file; the built-in models are for other engines. `returns`: what its function gives. InputError."""
    if source.file is None:
        expected = f'"FILE.py:FUNCTION", a function that returns {returns}, with the engine {engine}'
        raise InputError([Problem("model.use", expected, f'"{source.use}"', "or cluster.engine = numpy")])
    return source.file


def too_old(engine: str, needed: str, found: str) -> InputError:
    """Of a framework whose version is `found`."""
    hint = f"pip install -U 'thalweg[{engine}]'"
    return InputError([Problem("cluster.engine", f"{needed} or newer", found, hint)])


def random_bytes(batch: Batch) -> bytes:
    """Eight bytes for the framework's generator, from (seed, step, microbatch): the same whoever computes it."""
    assert batch.key is not None  # it is None where the model is evaluated
    return hashlib.blake2b(batch.key.tobytes(), digest_size=8).digest()
