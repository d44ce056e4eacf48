"""Laws of the ledger, against what a dumb count of everything says."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_cluster.ledger import combine
from thalweg_proto.ledger import Division, pack_head, pack_record, unpack
from thalweg_worker.sampler import Sampler


@st.composite
def runs(draw: st.DrawFn) -> tuple[Sampler, int]:
    """A sampler and steps: N from 1, B from 1 to several N."""
    samples = draw(st.integers(1, 20))
    batch_size = draw(st.integers(1, 50))
    microbatches = draw(st.integers(1, min(6, batch_size)))
    sampler = Sampler(draw(st.integers(0, 99)), samples=samples, batch_size=batch_size, microbatches=microbatches)
    return sampler, draw(st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(run=runs(), data=st.data())
def test_the_account_is_that_of_a_dumb_count(run: tuple[Sampler, int], data: st.DataObject) -> None:
    """Any order, any files, anything computed again, some of it lost or with other samples."""
    sampler, steps = run
    division = Division(sampler.samples, sampler.batch_size, sampler.microbatches)
    published = {(t, m): sampler.indices(t, m) for t in range(steps) for m in range(sampler.microbatches)}
    for key in data.draw(st.lists(st.sampled_from(sorted(published)), max_size=2)):
        published[key] = np.roll(published[key], 1) * 0 + data.draw(st.integers(0, sampler.samples - 1))
    lost = data.draw(st.sets(st.sampled_from(sorted(published)), max_size=2))
    kept = {key: rows for key, rows in published.items() if key not in lost}
    again = data.draw(st.lists(st.sampled_from(sorted(kept)), max_size=5)) if kept else []
    later = [(steps + t, 0) for t in range(data.draw(st.integers(0, 2)))]
    order = data.draw(st.permutations([*kept, *again, *later]))
    files = [pack_head(0, division)] * 3
    for key in order:
        rows = kept[key] if key in kept else sampler.indices(*key)
        files[data.draw(st.integers(0, 2))] += pack_record(division, *key, rows)

    samples = combine({str(i): unpack(file) for i, file in enumerate(files)}, steps)
    account = samples.account()

    epochs: dict[int, Counter[int]] = {}
    for (t, m), rows in kept.items():
        for i, row in enumerate(rows.tolist()):
            position = t * sampler.batch_size + sampler.slice(m)[0] + i
            epochs.setdefault(position // sampler.samples, Counter())[row] += 1
    whole = steps * sampler.batch_size // sampler.samples
    once = all(set(epochs.get(e, Counter()).values()) <= {1} for e in range(whole + 1)) and all(
        len(epochs.get(e, Counter())) == sampler.samples for e in range(whole)
    )
    assert (account.findings == ()) == (once and not lost)
    assert (account.again, account.unpublished, account.epochs) == (len(again), len(later), whole)
    for t in range(steps):
        expected = [row for m in range(sampler.microbatches) for row in kept.get((t, m), np.empty(0, int)).tolist()]
        assert samples.samples(t).tolist() == expected
