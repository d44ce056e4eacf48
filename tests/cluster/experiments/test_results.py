"""What an experiment comes to, and how it is written and shown."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from thalweg_cluster.experiments.grid import Configuration, Experiment, Series
from thalweg_cluster.experiments.parts import PARTS, Split
from thalweg_cluster.experiments.plots import plots
from thalweg_cluster.experiments.report import report
from thalweg_cluster.experiments.results import Results, results_of, to_csv, to_json
from thalweg_cluster.experiments.runs import CurvePoint, Run
from thalweg_cluster.experiments.simulation import Point
from thalweg_cluster.experiments.table import print_results

SYNC, ASYNC = Series("sync", "float32"), Series("async", "float32")
BATCH = 64


def run(workers, repeat, speed, *, series=SYNC, losses=(), **more):
    """Of a step whose time beyond 8 microbatches of 1 ms is the exchange's."""
    step_ms = 1e3 * BATCH / speed
    compute = 8.0 / workers
    ms = dict.fromkeys(PARTS, 0.0) | {"compute": compute, "exchange": step_ms - compute}
    return Run(
        configuration=Configuration(series, workers),
        repeat=repeat,
        samples_per_s=speed,
        step_ms=step_ms,
        training=tuple(CurvePoint(0.1 * i, BATCH * i, loss) for i, loss in enumerate(losses, 1)),
        split=Split(ms, None),
        point=Point(workers, 8, 1.0, 0.0, 0.0, step_ms - compute),
        weights_sha256="ab",
        **more,
    )


def failed(workers, repeat, reason="expected 5 CPUs; found <4>"):
    return Run(configuration=Configuration(SYNC, workers), repeat=repeat, reason=reason)


def results(runs, **options) -> Results:
    workers = tuple(sorted({each.configuration.workers for each in runs}))
    modes = tuple(dict.fromkeys(each.configuration.series.mode for each in runs))
    experiment = Experiment(workers=workers, modes=modes, wires=("float32",), **options)
    return results_of(experiment, runs, batch_size=lambda _: BATCH, cores=None)


def test_what_ran_in_the_same_repeat_is_compared():
    """The machine was half as fast in the second repeat: the speeds have a wide interval, the speed-up has none."""
    first, second = results([run(1, 0, 100), run(2, 0, 150), run(1, 1, 50), run(2, 1, 75)], repeats=2).rows
    assert first.samples_per_s.low < 60 < 80 < first.samples_per_s.high
    assert second.speedup == pytest.approx((1.5, 1.5, 1.5))
    assert second.efficiency == pytest.approx((0.75, 0.75, 0.75))
    assert first.speedup == (1.0, None, None)


def test_speed_up_is_relative_to_the_fewest_workers():
    first, second = results([run(2, 0, 100), run(8, 0, 200)]).rows
    assert (first.speedup.value, second.speedup.value, second.efficiency.value) == (2.0, 4.0, 0.5)


def test_a_series_is_compared_with_itself():
    rows = results([run(1, 0, 100), run(2, 0, 150), run(1, 0, 10, series=ASYNC), run(2, 0, 20, series=ASYNC)]).rows
    assert [row.speedup.value for row in rows if row.configuration.workers == 2] == [2.0, 1.5]  # async comes first


def test_a_configuration_that_fails_is_a_row_with_its_reason():
    ok, partly, never = results(
        [run(1, 0, 100), run(1, 1, 100), run(2, 0, 180), failed(2, 1), failed(5, 0), failed(5, 1)], repeats=2
    ).rows
    assert (ok.failed, ok.reason) == (0, None)
    assert (partly.failed, partly.speedup.value) == (1, pytest.approx(1.8))
    assert (never.failed, never.runs, never.samples_per_s, never.reason) == (2, 2, None, "expected 5 CPUs; found <4>")


def test_the_target_counts_where_every_run_reached_it():
    runs = [run(1, 0, 100, losses=[3, 2, 1]), run(1, 1, 100, losses=[3, 1, 1]), run(2, 0, 100, losses=[1, 3, 3])]
    one, two = results([*runs, run(2, 1, 100, losses=[3, 3])], target_loss=1.5, repeats=2).rows
    assert (one.time_to_target_s, one.samples_to_target) == (pytest.approx(0.25), 2.5 * BATCH)
    assert (two.time_to_target_s, two.samples_to_target) == (None, None)


def test_the_held_out_loss_goes_before_that_of_the_batches():
    evaluated = run(1, 0, 100, losses=[0.5], held_out=(CurvePoint(9.0, 900, 1.0),))
    assert evaluated.reached(1.0).time_s == 9.0
    assert evaluated.reached(0.7) is None


def test_predictions_are_compared_with_what_was_measured():
    """The exchange takes 1 ms whatever the number of workers: the simulation knows that from 1 and 2."""
    [analysis] = results([run(n, 0, 1e3 * BATCH / (8 / n + 1)) for n in (1, 2, 4, 8)]).analyses
    assert analysis.fitted_on == (1, 2)
    assert [p.workers for p in analysis.predictions] == [4, 8, 16, 32]
    assert [p.error for p in analysis.predictions[:2]] == [pytest.approx(0, abs=1e-6)] * 2
    assert analysis.predictions[2].error is None
    assert analysis.predictions[2].samples_per_s == pytest.approx(1e3 * BATCH / 2)  # 8 microbatches for 16 workers


def test_amdahl_needs_two_and_the_other_law_three_numbers_of_workers():
    for count, laws in ((1, (False, False)), (2, (True, False)), (3, (True, True))):
        [analysis] = results([run(n, 0, 100 * n**0.9) for n in (1, 2, 4)[:count]]).analyses
        assert (analysis.amdahl is not None, analysis.usl is not None) == laws


RUNS = [
    *(run(n, r, 100 * n**0.9, losses=[2, 1.0 / n]) for n in (1, 2, 4) for r in (0, 1)),
    *(failed(8, r) for r in (0, 1)),
]


def test_what_is_written_is_json_without_nan_and_one_csv_line_each():
    written = to_json(results(RUNS, repeats=2), name="x")
    again = json.loads(json.dumps(written, allow_nan=False))
    assert [c["workers"] for c in again["configurations"]] == [1, 2, 4, 8]
    assert again["configurations"][1]["speedup"]["value"] == pytest.approx(2**0.9)
    lines = list(csv.DictReader(io.StringIO(to_csv(results(RUNS, repeats=2)))))
    assert [line["workers"] for line in lines] == ["1", "2", "4", "8"]
    assert float(lines[1]["speedup"]) == pytest.approx(2**0.9)
    assert (lines[3]["samples_per_s"], lines[3]["reason"]) == ("", "expected 5 CPUs; found <4>")


def test_the_terminal_shows_rows_reasons_and_conclusions():
    console = Console(record=True, width=100, file=io.StringIO())
    print_results(console, results(RUNS, repeats=2, target_loss=1.5))
    text = console.export_text()
    assert "1.87" in text
    assert "sync, 8 workers: 2 of 2 runs failed: expected 5 CPUs; found <4>" in text
    assert "universal scalability law: " in text
    assert "the knee: " in text
    assert "sync, 4 workers: loss 1.5 after 0.20 s and 128 samples" in text


def test_the_report_needs_no_other_file_and_no_other_host():
    page = report(results(RUNS, repeats=2), plots(results(RUNS, repeats=2)), name="<a>", about=("here",), job="<b>")
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert 'src="data' in page
    assert 'src="/' not in page
    assert "<h1>Scaling of &lt;a&gt;</h1>" in page
    assert "found &lt;4&gt;" in page


def test_the_plots_are_pictures_and_none_is_empty():
    drawn = plots(results(RUNS, repeats=2))
    assert set(drawn) == {"speedup.png", "split.png", "loss.png"}
    assert all(png.startswith(b"\x89PNG") and len(png) > 10_000 for png in drawn.values())
    assert plots(results([failed(8, 0)])) == {}
