"""The report of an experiment: one HTML file that needs no other and asks no other host."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

from thalweg_cluster.experiments.parts import MEANING
from thalweg_cluster.experiments.results import Results
from thalweg_cluster.experiments.wording import (
    SPEED,
    STEP,
    conclusions,
    failures,
    speed_cells,
    step_cells,
    targets,
    title,
    told,
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0 } .about { opacity: .75; margin-top: .2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
img { max-width: 100%; height: auto; background: white; border-radius: 6px; margin: .6rem 0 }
.failed { color: #c0392b } pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: 6px }
"""


def report(results: Results, plots: Mapping[str, bytes], *, name: str, about: Iterable[str], job: str) -> str:
    """The page.

    plots: PNG files by name; name: of the job; about: lines on where and when it was measured; job: its file
    """
    body = [f"<h1>Scaling of {escape(name)}</h1>"]
    body += [f'<p class="about">{escape(line)}</p>' for line in (title(results.experiment), *about)]
    analyses = {analysis.series: analysis for analysis in results.analyses}
    for series, group in groupby(results.rows, key=lambda row: row.configuration.series):
        rows = list(group)
        body += [f"<h2>{escape(str(series))}</h2>", _table(SPEED, [speed_cells(row) for row in rows])]
        body += ["<h3>A worker's mean step, ms</h3>", _table(STEP, [step_cells(row) for row in rows])]
        body += [f"<p>{escape(line)}</p>" for line in conclusions(analyses[series])]
    body += [f"<p>{escape(line)}</p>" for line in targets(results)]
    body += [f'<p class="failed">{escape(line)}</p>' for line in failures(results)]
    body += [_picture(file, png) for file, png in plots.items()]
    meanings = "".join(f"<dt>{part}</dt><dd>{escape(meaning)}</dd>" for part, meaning in MEANING.items())
    body += [f"<h2>Parts of a step</h2><dl>{meanings}</dl>", "<h2>The job</h2>", f"<pre>{escape(job)}</pre>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f"<!doctype html><html lang=en><head>{head}<title>Scaling of {escape(name)}</title><style>{_STYLE}</style>"
        f"</head><body>{''.join(body)}</body></html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    header, rows = told(header, rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{heads}</tr>{lines}</table></div>'


def _picture(file: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(file)}" src="data:image/png;base64,{data}">'
