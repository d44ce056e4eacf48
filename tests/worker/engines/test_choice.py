"""Which engine a job asks for, and what is said where it is not there."""

from __future__ import annotations

import pytest

from thalweg_proto.errors import InputError
from thalweg_worker import engines
from thalweg_worker.batch import DataSpec
from thalweg_worker.models import ModelSource
from thalweg_worker.models.mlp import Mlp

SPEC = DataSpec(input_shape=(4,), task="classification", classes=3)


def test_a_built_in_model_is_what_numpy_takes():
    assert isinstance(engines.model_for("numpy", ModelSource(use="mlp"), SPEC, 0), Mlp)


@pytest.mark.parametrize("engine", engines.EXTRAS)
def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch, engine):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(InputError) as refused:
        engines.model_for(engine, ModelSource(use="mlp"), SPEC, 0)
    [problem] = refused.value.problems
    assert problem.field == "cluster.engine"
    assert f'found "{engine}", and no module {engine}' in str(problem)
    assert f"pip install 'thalweg[{engine}]'" in str(problem)
