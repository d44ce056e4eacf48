"""The job file's table: what is right becomes a job, what is wrong is named, all at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from thalweg_proto.job import ArrayPair, Draft, Job, parse_job

FOLDER = Path("/job")
LEAST: dict[str, Any] = {
    "name": "mnist-mlp",
    "data": {"train": "digits"},
    "model": {"use": "mlp"},
    "train": {"steps": 500},
}


def draft(**changes: Any) -> Draft:
    """The least job with changes: `train={"steps": 3}` changes keys of a section, None takes one out."""
    return parse_job(changed(**changes), folder=FOLDER)


def parse(**changes: Any) -> Job:
    """The least job with changes that are right."""
    found = draft(**changes)
    assert found.problems == ()
    return found.job


def changed(**changes: Any) -> dict[str, Any]:
    table = copy.deepcopy(LEAST)
    for name, value in changes.items():
        section = {**table.get(name, {}), **value} if isinstance(value, dict) else value
        table[name] = {k: v for k, v in section.items() if v is not None} if isinstance(section, dict) else section
    return {name: value for name, value in table.items() if value is not None}


def problems(**changes: Any) -> dict[str, str]:
    """The problems of the least job with changes: field and text."""
    return {problem.field: str(problem) for problem in draft(**changes).problems}


def test_a_short_job_gets_every_default() -> None:
    """What the file leaves out has the value that the contract gives it."""
    job = parse()
    assert (job.seed, job.data.eval, job.data.scale, job.data.task, job.data.label) == (
        0,
        0.2,
        "standard",
        "auto",
        "label",
    )
    assert (job.train.batch_size, job.train.microbatches, job.train.eval_every) == (128, 8, 100)
    assert (job.train.consistency, job.train.staleness, job.train.backup_workers) == ("sync", None, 0)
    assert (job.train.local_steps, job.cluster.servers) == (1, 0)
    assert (job.cluster.wire, job.cluster.wire_fraction, job.cluster.wire_parameters) == ("float32", None, "float32")
    assert (job.optimizer.rule, job.optimizer.learning_rate, job.optimizer.momentum) == ("momentum", 0.1, 0.9)
    assert (job.cluster.workers, job.cluster.engine, job.cluster.max_failures) == (2, "numpy", 3)
    assert (job.checkpoint.every_steps, job.checkpoint.keep, job.metrics.port) == (100, 3, 0)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("sgd", {"learning_rate": 0.1, "weight_decay": 0.0}),
        ("nesterov", {"learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9}),
        (
            "adagrad",
            {
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "eps": 1e-10,
                "lr_decay": 0.0,
                "initial_accumulator_value": 0.0,
            },
        ),
        (
            "rmsprop",
            {
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "momentum": 0.0,
                "alpha": 0.99,
                "centered": False,
                "eps": 1e-8,
            },
        ),
        ("adam", {"learning_rate": 0.001, "weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-8}),
        ("adamw", {"learning_rate": 0.001, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}),
    ],
)
def test_a_rule_has_its_own_options_with_torch_defaults(rule: str, options: dict[str, Any]) -> None:
    """`options_for("rule")` is exactly what the rule takes."""
    assert parse(optimizer={"rule": rule}).optimizer.options_for("rule") == options


@pytest.mark.parametrize(
    ("consistency", "options"),
    [
        (
            "sync",
            {
                "backup_workers": 0,
                "local_steps": 1,
                "outer_learning_rate": 0.7,
                "outer_momentum": 0.9,
                "non_finite": "stop",
            },
        ),
        ("ssp", {"staleness": 3, "staleness_scaling": False}),
        ("async", {"staleness_scaling": False}),
    ],
)
def test_a_consistency_has_its_own_options(consistency: str, options: dict[str, Any]) -> None:
    """`options_for("consistency")` is exactly what it takes, with the defaults of the contract."""
    assert parse(train={"consistency": consistency}).train.options_for("consistency") == options


@pytest.mark.parametrize(
    ("cluster", "of", "options"),
    [
        ({"wire": "topk"}, "wire", {"wire_fraction": 0.01}),
        *(({"wire": wire}, "wire", {}) for wire in ("float32", "bfloat16", "int8")),
        ({"engine": "emulated"}, "engine", {"emulated_ms": 50.0}),
        ({"engine": "torch"}, "engine", {"autocast": "off", "compile": False}),
        *(({"engine": engine}, "engine", {}) for engine in ("numpy", "jax")),
        ({"engine": "cupy", "gpus_per_worker": 1}, "engine", {}),
    ],
)
def test_a_wire_format_and_an_engine_have_their_own_options(
    cluster: dict[str, Any], of: str, options: dict[str, Any]
) -> None:
    """Only topk takes a fraction, only the emulated engine a time, and only that of PyTorch what PyTorch can do."""
    assert parse(cluster=cluster).cluster.options_for(of) == options


def test_microbatches_follow_a_small_batch() -> None:
    """By default there are 8 microbatches, or as many as the batch has samples."""
    assert parse(train={"batch_size": 3}).train.microbatches == 3
    assert parse(train={"batch_size": "full"}).train.microbatches is None


def test_paths_are_made_absolute_from_the_folder() -> None:
    """Data, weights and model files start at the folder of the job file; built-in names stay."""
    job = parse(
        data={"train": {"x": "x.npy", "y": "../y.npy"}, "eval": "e.csv"},
        model={"use": "my_model.py:build", "init": "w.safetensors"},
    )
    assert job.data.train == ArrayPair(x="/job/x.npy", y="/y.npy")
    assert (job.data.eval, job.model.init) == ("/job/e.csv", "/job/w.safetensors")
    assert job.model.use == "/job/my_model.py:build"
    assert parse().data.train == "digits"


def test_the_rest_of_the_model_table_goes_to_the_model() -> None:
    """Any key besides `use` and `init` is an option of the model."""
    assert parse(model={"hidden": [128, 128], "bias": True}).model.options == {"hidden": [128, 128], "bias": True}


def test_a_whole_number_is_taken_for_a_number() -> None:
    """An integer stands for the float of its value."""
    rate = parse(optimizer={"learning_rate": 1}).optimizer.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"consistency": "ssp", "staleness": 2}},
        {"train": {"consistency": "async"}},
        {"train": {"consistency": "async", "staleness_scaling": True}},
        {"train": {"backup_workers": 1}},
        {"train": {"backup_workers": 1, "local_steps": 1}},
        {"train": {"local_steps": 8, "outer_learning_rate": 1.0, "outer_momentum": 0.0}},
        {"cluster": {"servers": 3}},
        {"cluster": {"wire": "topk", "wire_fraction": 0.25, "wire_parameters": "bfloat16"}},
        {"cluster": {"engine": "emulated", "emulated_ms": 0.0}},
        {"cluster": {"workers": (1, 8)}},
        {"cluster": {"engine": "emulated", "emulated_ms": (5.0, 50.0)}},
        *({"cluster": {"engine": engine}} for engine in ("torch", "jax", "emulated")),
        *({"cluster": {"engine": engine, "gpus_per_worker": 0.5}} for engine in ("cupy", "torch", "jax")),
    ],
)
def test_what_a_version_cannot_run_yet_is_no_mistake_of_the_file(changes: dict[str, Any]) -> None:
    """The whole contract parses; the launch decides what it can run."""
    (section, values) = next(iter(changes.items()))
    job = parse(**changes)
    assert {key: getattr(getattr(job, section), key) for key in values} == values


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"data": {"lable": "y"}}, "data.lable", 'did you mean "label"?'),
        ({"datta": {}}, "datta", 'did you mean "data"?'),
        (
            {"data": {"context": 32}},
            "data.context",
            "a text as data.train (.txt or .md), which alone takes it",
        ),
        ({"data": {"train": "a.txt", "context": 0}}, "data.context", "a whole number from 1 to 1048576; found 0"),
        ({"data": {"train": "a.txt", "task": "regression"}}, "data.task", '"classification" of a text'),
        ({"data": {"size": 3}}, "data.size", "expected a known key; found 3"),
        ({"train": {"learning_rate": 1}}, "train.learning_rate", "it belongs in [optimizer]"),
        ({"optimizer": {"lr": 1}}, "optimizer.lr", "known here: rule, learning_rate"),
        ({"train": 3}, "train", "expected a table, [train]; found 3"),
        ({"train": {"steps": True}}, "train.steps", "a whole number >= 1; found true"),
        ({"train": {"steps": 1.0}}, "train.steps", "a whole number >= 1; found 1.0"),
        ({"train": {"steps": 10**5000}}, "train.steps", "found a whole number of 16610 bits"),
        ({"train": {"batch_size": "ful"}}, "train.batch_size", 'did you mean "full"?'),
        ({"train": {"batch_size": 0}}, "train.batch_size", 'a whole number >= 1 or "full"; found 0'),
        ({"train": {"steps": None}}, "train.steps", "expected steps or epochs; found neither"),
        ({"train": {"epochs": 3}}, "train.steps", "steps or epochs, not both; found steps = 500, epochs = 3"),
        ({"train": {"microbatches": 1}}, "train.microbatches", "microbatches not at least workers"),
        ({"train": {"batch_size": 4, "microbatches": 8}}, "train.batch_size", "batch smaller than microbatches"),
        ({"train": {"staleness": 1}}, "train.staleness", '"staleness" belongs to consistency "ssp"'),
        ({"train": {"backup_workers": 2}}, "train.backup_workers", "fewer than cluster.workers (2); found 2"),
        *(
            (
                {"train": {"consistency": consistency, key: value}},
                f"train.{key}",
                f'"{key}" belongs to consistency "sync"',
            )
            for consistency in ("ssp", "async")
            for key, value in (
                ("backup_workers", 1),
                ("local_steps", 2),
                ("outer_learning_rate", 0.5),
                ("outer_momentum", 0.5),
                ("non_finite", "skip"),
            )
        ),
        (
            {"train": {"staleness_scaling": True}},
            "train.staleness_scaling",
            '"staleness_scaling" belongs to consistency "ssp" or "async"',
        ),
        ({"train": {"consistency": "async", "staleness": 3}}, "train.staleness", 'belongs to consistency "ssp"'),
        ({"train": {"consistency": "ssp", "staleness": -1}}, "train.staleness", "a whole number >= 0; found -1"),
        ({"train": {"local_steps": 0}}, "train.local_steps", "a whole number >= 1; found 0"),
        ({"train": {"outer_learning_rate": 0}}, "train.outer_learning_rate", "a number > 0; found 0"),
        ({"train": {"outer_momentum": 1}}, "train.outer_momentum", "a number >= 0 and < 1; found 1"),
        (
            {"train": {"backup_workers": 1, "local_steps": 4}},
            "train.backup_workers",
            "expected 0 with local_steps; found 1\n    a round waits for all workers",
        ),
        ({"train": {"non_finite": "ignore"}}, "train.non_finite", '"stop" or "skip"'),
        (
            {"train": {"non_finite": "skip", "local_steps": 4}},
            "train.non_finite",
            "expected \"stop\" with local_steps; found 'skip'",
        ),
        (
            {"train": {"non_finite": "skip"}, "cluster": {"wire": "int8"}},
            "cluster.wire",
            'expected "float32" with train.non_finite = "skip"; found \'int8\'',
        ),
        ({"optimizer": {"learning_rate": -0.1}}, "optimizer.learning_rate", "a number > 0; found -0.1"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate", "a number > 0; found 0"),
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate", "found nan"),
        ({"optimizer": {"learning_rate": float("inf")}}, "optimizer.learning_rate", "found inf"),
        ({"optimizer": {"learning_rate": 10**400}}, "optimizer.learning_rate", "does not fit into a float"),
        ({"optimizer": {"learning_rate": "0.1"}}, "optimizer.learning_rate", 'found "0.1"'),
        ({"optimizer": {"learning_rate": True}}, "optimizer.learning_rate", "found true"),
        ({"optimizer": {"momentum": 1.0}}, "optimizer.momentum", "a number >= 0 and < 1; found 1.0"),
        ({"optimizer": {"rule": "nesterov", "momentum": 0}}, "optimizer.momentum", "a number > 0"),
        (
            {"optimizer": {"rule": "adam", "momentum": 0.9}},
            "optimizer.momentum",
            'an option of rule "adam" (learning_rate, weight_decay, betas, eps); found 0.9\n'
            '    "momentum" belongs to rule "momentum", "nesterov" or "rmsprop"',
        ),
        ({"optimizer": {"rule": "rmsprob"}}, "optimizer.rule", 'did you mean "rmsprop"?'),
        ({"optimizer": {"rule": "Adam"}}, "optimizer.rule", 'did you mean "adam"?'),
        ({"optimizer": {"rule": "adam", "betas": [0.9]}}, "optimizer.betas", "a list of 2 numbers"),
        ({"optimizer": {"schedule": "step"}}, "optimizer.step_size", 'which schedule "step" needs; found nothing'),
        (
            {"optimizer": {"schedule": "cosine", "min_learning_rate": 1}},
            "optimizer.min_learning_rate",
            "at most optimizer.learning_rate (0.1); found 1",
        ),
        (
            {"cluster": {"workers": 0}},
            "cluster.workers",
            "a whole number >= 1 or [least, most], each a whole number >= 1",
        ),
        ({"cluster": {"workers": [3, 2]}}, "cluster.workers", "the least comes first"),
        ({"cluster": {"workers": [2]}}, "cluster.workers", "found [2]"),
        ({"cluster": {"workers": [0, 2]}}, "cluster.workers", "found [0, 2]"),
        (
            {"cluster": {"workers": [1, 9]}, "train": {"microbatches": 8}},
            "train.microbatches",
            "at least cluster.workers (9)",
        ),
        ({"cluster": {"engine": "numpi"}}, "cluster.engine", 'did you mean "numpy"?'),
        ({"cluster": {"servers": -1}}, "cluster.servers", "a whole number >= 0; found -1"),
        ({"cluster": {"wire": "float16"}}, "cluster.wire", 'did you mean "bfloat16"?'),
        ({"cluster": {"wire": "top-k"}}, "cluster.wire", 'did you mean "topk"?'),
        ({"cluster": {"wire_parameters": "int8"}}, "cluster.wire_parameters", '"float32" or "bfloat16"; found "int8"'),
        *(
            (
                {"cluster": {"wire": wire, "wire_fraction": 0.1}},
                "cluster.wire_fraction",
                '"wire_fraction" belongs to wire "topk"',
            )
            for wire in ("float32", "bfloat16", "int8")
        ),
        *(
            (
                {"cluster": {"wire": "topk", "wire_fraction": fraction}},
                "cluster.wire_fraction",
                f"a number > 0 and < 1; found {fraction}",
            )
            for fraction in (0, 1)
        ),
        ({"cluster": {"autocast": "bfloat16"}}, "cluster.autocast", '"autocast" belongs to engine "torch"'),
        ({"cluster": {"engine": "jax", "compile": True}}, "cluster.compile", '"compile" belongs to engine "torch"'),
        (
            {"cluster": {"engine": "torch", "autocast": "float16"}},
            "cluster.autocast",
            'expected "off" or "bfloat16"; found "float16"',
        ),
        ({"cluster": {"emulated_ms": 5}}, "cluster.emulated_ms", '"emulated_ms" belongs to engine "emulated"'),
        (
            {"cluster": {"engine": "emulated", "emulated_ms": -1}},
            "cluster.emulated_ms",
            "a number >= 0 or a list of numbers, each a number >= 0; found -1",
        ),
        ({"cluster": {"engine": "emulated", "emulated_ms": []}}, "cluster.emulated_ms", "a list of numbers"),
        (
            {"cluster": {"engine": "emulated", "emulated_ms": [5, 50, 5]}},
            "cluster.emulated_ms",
            "one number, or one for each of cluster.workers (2); found 3 numbers",
        ),
        ({"cluster": {"placement": "pack"}}, "cluster.placement", '"PACK" or "SPREAD"; found "pack"'),
        (
            {"cluster": {"engine": "torch", "gpus_per_worker": 1.5}},
            "cluster.gpus_per_worker",
            "a share of one GPU, or 1; found 1.5",
        ),
        *(
            (
                {"cluster": {"engine": engine, "gpus_per_worker": 0.5}},
                "cluster.gpus_per_worker",
                f'0 with the engine "{engine}", which computes on the CPU; found 0.5',
            )
            for engine in ("numpy", "emulated")
        ),
        ({"cluster": {"engine": "cupy"}}, "cluster.gpus_per_worker", 'more than 0 with the engine "cupy"'),
        ({"metrics": {"port": 70000}}, "metrics.port", "a whole number from 0 to 65535; found 70000"),
        ({"data": {"eval": 1.0}}, "data.eval", "a number >= 0 and < 1"),
        ({"data": {"train": {"x": "a.npy"}}}, "data.train", '{ x = "...", y = "..." }; found { x = "a.npy" }'),
        ({"data": {"train": None}}, "data.train", "found nothing"),
        ({"data": {"train": "a\0b"}}, "data.train", "control character"),
        ({"model": {"use": "my_model.py"}}, "model.use", '"FILE.py:FUNCTION"; found "my_model.py"'),
        ({"model": {"use": "mpl"}}, "model.use", 'did you mean "mlp"?'),
        ({"seed": -1}, "seed", "a whole number >= 0; found -1"),
        ({"seed": 2**63}, "seed", f"the largest is {2**63 - 1}"),
        ({"name": None}, "name", "found nothing"),
        *(({"name": name}, "name", "a name without") for name in ("a/b", "..", "a..b", "", ".", "-x", "a\nb", "a\\b")),
        ({"name": "x" * 200}, "name", "longer than 128 bytes"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected_and_found(changes: dict[str, Any], field: str, text: str) -> None:
    """One mistake gives one problem, at its field."""
    found = problems(**changes)
    assert list(found) == [field]
    assert text in found[field]


def test_all_mistakes_are_reported_together() -> None:
    """Wrong keys, values, choices and laws between fields come in one error."""
    found = problems(
        seed=-1,
        extra=1,
        data={"train": 3},
        train={"steps": 0, "batch_size": 4, "microbatches": 8},
        optimizer={"rule": "sgd", "momentum": 0.9},
        cluster={"workers": 10, "engine": "numpi"},
    )
    assert set(found) == {
        "seed",
        "extra",
        "data.train",
        "train.steps",
        "train.batch_size",
        "train.microbatches",
        "optimizer.momentum",
        "cluster.engine",
    }


def test_a_wrong_field_does_not_break_laws_about_it() -> None:
    """Where the number of workers is wrong itself, nothing is said about microbatches for them."""
    assert set(problems(cluster={"workers": 0}, train={"microbatches": 1})) == {"cluster.workers"}
    assert set(problems(optimizer={"rule": "sgdd", "momentum": 0.5})) == {"optimizer.rule"}
    assert set(problems(train={"local_steps": 0, "backup_workers": 1})) == {"train.local_steps"}
    assert set(problems(train={"consistency": "ssp", "backup_workers": 1, "local_steps": 4})) == {
        "train.backup_workers",
        "train.local_steps",
    }


def test_a_text_has_a_context_and_nothing_else_has() -> None:
    """64 where the file does not say."""
    assert parse(data={"train": "a.TXT"}).data.context == 64
    assert parse(data={"train": "a.md", "context": 7}).data.context == 7
    assert parse(data={"train": "a.csv"}).data.context is None


def test_other_keys_of_data_are_for_the_function_that_it_names() -> None:
    """As those of [model] are for the model's; whether it is named for training or for the evaluation."""
    for key in ("train", "eval"):
        data = parse(data={key: "my.py:data", "size": 3, "of": {"a": [1]}}).data
        assert getattr(data, key) == "/job/my.py:data"
        assert (data.options, data.label) == ({"size": 3, "of": {"a": [1]}}, "label")
    assert parse().data.options == {}


def test_a_misplaced_option_of_a_wrong_kind_is_one_mistake() -> None:
    """It does not matter what the value is where the rule does not take the option."""
    found = draft(optimizer={"rule": "sgd", "alpha": "many"}).problems
    assert [problem.hint for problem in found] == ['"alpha" belongs to rule "rmsprop"']


def test_a_draft_tells_what_a_check_may_build_on() -> None:
    """A field is right where neither it nor its table has a problem, and what is right has its value."""
    found = draft(data={"train": "a.csv", "label": 3}, cluster=7, optimizer={"min_learning_rate": 1, "rule": "adam"})
    assert found.right("data.train", "data.eval", "model.use", "train.steps")
    assert not found.right("data.train", "data.label")
    assert not found.right("cluster.workers")
    assert (found.job.data.train, found.job.model.use) == ("/job/a.csv", "mlp")
    assert found.wrong_in("data") == {"label"}
    assert found.wrong_in("cluster") >= {"workers", "engine", "placement"}
    assert found.wrong_in("model") == set()


def test_what_breaks_a_law_is_wrong_too() -> None:
    """Too few microbatches are as little to build on as a number that is none."""
    found = draft(train={"microbatches": 1})
    assert not found.right("train.microbatches")
    assert found.right("cluster.workers", "train.batch_size", "train.steps")


@pytest.mark.parametrize(
    ("changes", "doubt", "right"),
    [
        ({"data": {"lable": "y"}}, ["data.label"], ["data.train", "data.task", "data.scale"]),
        ({"data": {"target": "y"}}, ["data.label"], ["data.train", "data.task", "data.scale"]),
        ({"data": {"shuffle": True}}, [], ["data.train", "data.label", "data.eval", "data.task", "data.scale"]),
        ({"data": {"lable": "y", "label": "z"}}, [], ["data.label"]),
        ({"cluster": {"wrokers": 3}}, ["cluster.workers"], ["cluster.engine"]),
        ({"workers": 3}, ["cluster.workers"], ["cluster.engine"]),
        ({"train": {"learning_rate": 1}}, ["optimizer.learning_rate"], ["optimizer.rule", "train.steps"]),
        ({"clutser": {"workers": 3}}, ["cluster.workers", "cluster.engine"], ["train.steps"]),
    ],
)
def test_a_key_that_an_unknown_one_was_perhaps_meant_for_is_in_doubt(
    changes: dict[str, Any], doubt: list[str], right: list[str]
) -> None:
    """Not given, and spelt alike, of a kind that takes the value, or known by that name elsewhere: nobody can tell."""
    found = draft(**changes)
    assert len(found.problems) == 1
    assert [field for field in doubt if found.right(field)] == []
    assert found.right(*right)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"train": None, "trian": "a.csv"}},
        {"data": None, "daat": {"train": "a.csv"}},
        {"model": {"use": None}, "data": {"use": "mlp"}},
        {"train": {"steps": None, "stesp": 5}},
        {"train": {"steps": None, "iterations": 5}},
        {"train": None, "trian": {"steps": 5}},
        {"cluster": {"wrokers": 2}, "train": {"microbatches": 1}},
        {"optimizer": {"rul": "adam", "betas": [0.9, 0.9]}},
        {"optimizer": {"schedule": "step", "step_siz": 3}},
        {"optimizer": {"schedule": "cosine", "min_learning_rate": 1}, "train": {"learning_rate": 2}},
    ],
)
def test_a_misspelt_key_is_one_mistake(changes: dict[str, Any]) -> None:
    """What is only missing, misplaced or out of range because of the slip is not reported beside it."""
    assert len(problems(**changes)) == 1
