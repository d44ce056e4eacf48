from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thalweg_cluster.server.evaluation import Evaluations
from thalweg_proto.messages import Evaluated


def test_the_result_comes_with_the_last_chunk():
    """Two chunks of 3 and 1 labels: the mean counts labels, not chunks."""
    evaluations = Evaluations(2)
    assert evaluations.on_evaluated(Evaluated(5, 1, 1, 0, 2.0)) is None
    assert evaluations.on_evaluated(Evaluated(5, 1, 1, 0, 2.0)) is None  # a repeat is not the other chunk
    result = evaluations.on_evaluated(Evaluated(5, 0, 3, 3, 6.0))
    assert (result.loss, result.accuracy) == (2.0, 0.75)


def test_versions_are_kept_apart():
    """What a worker says of version 6 before another has spoken of version 5 completes neither."""
    evaluations = Evaluations(2)
    assert evaluations.on_evaluated(Evaluated(5, 0, 1, 1, 1.0)) is None
    assert evaluations.on_evaluated(Evaluated(6, 1, 1, 1, 9.0)) is None
    assert evaluations.on_evaluated(Evaluated(5, 1, 1, 1, 3.0)).loss == 2.0
    assert evaluations.on_evaluated(Evaluated(6, 0, 1, 1, 1.0)).loss == 5.0


def test_a_regression_has_no_accuracy():
    """Chunks that count no hits give a loss alone."""
    assert Evaluations(1).on_evaluated(Evaluated(0, 0, 4, -1, 1.0)).accuracy is None


@given(st.permutations(range(7)), st.lists(st.floats(0, 1e6), min_size=7, max_size=7))
def test_the_order_in_which_chunks_arrive_leaves_the_bits_alone(order, losses):
    """Any order of arrival gives the same loss to the last bit."""
    results = []
    for sequence in (range(7), order):
        evaluations = Evaluations(7)
        results.append([evaluations.on_evaluated(Evaluated(0, c, 2, 1, losses[c])) for c in sequence][-1])
    assert results[0] == results[1]
