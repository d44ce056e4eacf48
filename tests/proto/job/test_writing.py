"""A job written back is the same job, with nothing left to default."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg_proto.job import job_reference, job_to_toml, parse_job
from thalweg_proto.job.options import options_in
from thalweg_proto.job.sections import SECTIONS, Job, OptimizerSection

toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

WORDS = st.text("abcxyz_ .é\"'#=[]\\\n", min_size=1, max_size=8).filter(lambda text: text.isprintable())
FILES = st.text("abc/.", min_size=1, max_size=8)
RATES = st.floats(1e-9, 1e9)
PARTS = st.floats(0, 1, exclude_max=True)
VALUES = st.recursive(
    st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
SOURCES = st.just("digits") | FILES | st.fixed_dictionaries({"x": FILES, "y": FILES})
SCALES = st.sampled_from(["none", "standard"])
DATA: Any = st.one_of(
    st.fixed_dictionaries({"train": SOURCES}, optional={"eval": PARTS | SOURCES, "label": WORDS, "scale": SCALES}),
    st.fixed_dictionaries({"train": st.just("a b.txt")}, optional={"context": st.integers(1, 99), "eval": PARTS}),
    st.fixed_dictionaries(
        {"train": st.just("../d.py:data")}, optional={"scale": SCALES, "size": VALUES, "a key": VALUES}
    ),
)
RULE_OPTIONS: dict[str, Any] = {
    "learning_rate": RATES,
    "weight_decay": st.floats(0, 10),
    "momentum": st.floats(0.01, 0.99),
    "alpha": PARTS,
    "centered": st.booleans(),
    "betas": st.lists(PARTS, min_size=2, max_size=2),
    "eps": RATES,
    "lr_decay": PARTS,
    "initial_accumulator_value": PARTS,
}
CONSISTENCIES: Any = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "consistency": st.just("sync"),
            "local_steps": st.integers(1, 99),
            "outer_learning_rate": RATES,
            "outer_momentum": PARTS,
        },
    ),
    st.fixed_dictionaries(
        {"consistency": st.just("ssp")},
        optional={"staleness": st.integers(0, 99), "staleness_scaling": st.booleans()},
    ),
    st.fixed_dictionaries({"consistency": st.just("async")}, optional={"staleness_scaling": st.booleans()}),
)
WIRES: Any = st.one_of(
    st.fixed_dictionaries({}, optional={"wire": st.sampled_from(["float32", "bfloat16", "int8"])}),
    st.fixed_dictionaries({"wire": st.just("topk")}, optional={"wire_fraction": st.floats(0.001, 0.999)}),
)
SERVERS: Any = {"servers": st.integers(0, 9), "wire_parameters": st.sampled_from(["float32", "bfloat16"])}


def engines(workers: int) -> Any:
    """With a time for all workers, or for each."""
    times = PARTS | st.tuples(*[PARTS] * workers)
    return st.one_of(
        st.fixed_dictionaries({}, optional={"engine": st.sampled_from(["numpy", "torch"])}),
        st.fixed_dictionaries(
            {"engine": st.just("torch")},
            optional={"autocast": st.sampled_from(["off", "bfloat16"]), "compile": st.booleans()},
        ),
        st.fixed_dictionaries({"engine": st.just("emulated")}, optional={"emulated_ms": times}),
    )


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Job files of all kinds that are right."""
    rule = draw(st.sampled_from(["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"]))
    taken = {name: RULE_OPTIONS[name] for name in RULE_OPTIONS if rule in options_in(OptimizerSection)[name].defaults}
    workers = draw(st.integers(1, 5))
    length = draw(st.sampled_from(["steps", "epochs"]))
    lengths = st.integers(1, 2**63 - 1) if length == "steps" else RATES
    return {
        "name": draw(st.text("abc-_é", min_size=1).filter(lambda name: not name.startswith("-"))),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "data": draw(DATA),
        "model": {
            **draw(st.dictionaries(WORDS.filter(lambda word: word not in ("use", "init")), VALUES, max_size=3)),
            "use": draw(st.sampled_from(["linear", "convnet", "a b.py:build", "../m.py:make"])),
            **draw(st.fixed_dictionaries({}, optional={"init": FILES})),
        },
        "train": {
            length: draw(lengths),
            "batch_size": draw(st.integers(40, 99) | st.just("full")),
            **draw(st.fixed_dictionaries({}, optional={"microbatches": st.integers(5, 40)})),
            **draw(CONSISTENCIES),
        },
        "optimizer": {"rule": rule, **draw(st.fixed_dictionaries({}, optional=taken))},
        "cluster": {
            "workers": workers,
            **draw(WIRES),
            **draw(engines(workers)),
            **draw(st.fixed_dictionaries({}, optional=SERVERS)),
        },
    }


@settings(max_examples=100, deadline=None)
@given(tables())
def test_parsing_undoes_writing(table: dict[str, Any]) -> None:
    """parse(job_to_toml(job)) == job, from whatever folder."""
    draft = parse_job(table, folder=Path("/some/where"))
    assert draft.problems == ()
    assert parse_job(toml.loads(job_to_toml(draft.job)), folder=Path("/else")) == draft


def test_what_is_written_leaves_nothing_to_default() -> None:
    """Every key that exists for the job stands in the file, and all paths are absolute."""
    table = {
        "name": "a",
        "data": {"train": {"x": "x.npy", "y": "y.npy"}},
        "model": {"use": "m.py:build"},
        "train": {"steps": 1},
    }
    written = toml.loads(job_to_toml(parse_job(table, folder=Path("/job")).job))
    assert written["data"]["train"] == {"x": "/job/x.npy", "y": "/job/y.npy"}
    assert written["model"]["use"] == "/job/m.py:build"
    for name in ("data", "train", "optimizer", "cluster", "checkpoint", "metrics"):
        section = SECTIONS[name]
        always = {key for key, option in options_in(section).items() if not option.of and option.default is not None}
        assert always <= set(written[name])
    assert written["optimizer"]["momentum"] == 0.9
    assert written["train"]["microbatches"] == 8


def test_the_reference_names_every_key_with_its_meaning() -> None:
    """The page for people comes from the declaration that the checker reads."""
    reference = job_reference()
    for section in (Job, *SECTIONS.values()):
        for key, option in options_in(section).items():
            assert option.doc in reference
            assert f"{key} =" in reference
    assert "\n#   0.9 for rule momentum or nesterov\n" in reference
