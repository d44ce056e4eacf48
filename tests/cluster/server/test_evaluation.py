from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.evaluation import EvaluationGate
from thalweg_proto.messages import Evaluated


def test_the_result_comes_with_the_last_chunk():
    """Two chunks of 3 and 1 samples: the mean counts samples, not chunks."""
    gate = EvaluationGate(2)
    gate.begin(5)
    assert gate.on_evaluated(Evaluated(5, 1, 1, 0, 2.0)) is None
    result = gate.on_evaluated(Evaluated(5, 0, 3, 3, 6.0))
    assert (result.loss, result.accuracy) == (2.0, 0.75)
    assert gate.wanted is None


def test_chunks_of_another_version_do_not_count():
    """What a slow worker says of an older version changes nothing."""
    gate = EvaluationGate(1)
    gate.begin(5)
    assert gate.on_evaluated(Evaluated(4, 0, 1, 1, 1.0)) is None
    assert gate.wanted == 5


def test_a_regression_has_no_accuracy():
    """Chunks that count no hits give a loss alone."""
    gate = EvaluationGate(1)
    gate.begin(0)
    assert gate.on_evaluated(Evaluated(0, 0, 4, -1, 1.0)).accuracy is None


@given(st.permutations(range(7)), st.lists(st.floats(0, 1e6), min_size=7, max_size=7))
def test_the_order_in_which_chunks_arrive_leaves_the_bits_alone(order, losses):
    """Any order of arrival gives the same loss to the last bit."""
    results = []
    for sequence in (range(7), order):
        gate = EvaluationGate(7)
        gate.begin(0)
        results.append([gate.on_evaluated(Evaluated(0, c, 2, 1, losses[c])) for c in sequence][-1])
    assert results[0] == results[1]
