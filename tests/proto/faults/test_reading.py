from __future__ import annotations

import pytest

from thalweg_proto.errors import InputError
from thalweg_proto.faults import Fault, Plan, load_plan, parse_plan

KILL = {"do": "kill", "at": "push.before"}
PLAN = """
seed = 7
[[fault]]
do = "kill"
at = "push.before"
worker = 1
step = 20
[[fault]]
do = "delay"
at = "rpc.pull.reply"
server = 0
seconds = 0.2
jitter = 0.1
"""


def test_a_plan_is_read(tmp_path):
    """As it was written."""
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    assert load_plan(file) == Plan(
        seed=7,
        faults=(
            Fault(do="kill", at="push.before", worker=1, step=20),
            Fault(do="delay", at="rpc.pull.reply", server=0, seconds=0.2, jitter=0.1),
        ),
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"at": "push.before"}, 'fault 1: do: expected "kill", '),
        ({"do": "kill"}, 'fault 1: at: expected "gradient.before", '),
        ({"do": "kil", "at": "push.before"}, 'found "kil"\n    did you mean "kill"?'),
        ({"do": "kill", "at": "push.befor"}, 'found "push.befor"\n    did you mean "push.before"?'),
        (KILL | {"wrker": 1}, 'wrker: expected a known key; found 1\n    did you mean "worker"?'),
        (KILL | {"worker": -1}, "worker: expected a whole number >= 0; found -1"),
        (KILL | {"step": True}, "step: expected a whole number >= 0; found true"),
        (KILL | {"server": 0}, "server: expected worker, who comes to push.before"),
        ({"do": "kill", "at": "shard.write", "worker": 0}, "worker: expected server, who comes to shard.write"),
        (KILL | {"at": "apply.middle", "worker": 0, "server": 0}, "server: expected worker or server; found both"),
        (KILL | {"do": "nan"}, "do: expected what can happen at push.before: kill, pause or delay; found nan"),
        ({"do": "pause", "at": "push.before"}, "seconds: expected a number > 0, which pause needs; found nothing"),
        (KILL | {"seconds": 1.0}, "seconds: expected pause or delay for do, which take it"),
        (KILL | {"do": "delay", "seconds": 1, "jitter": 2}, "jitter: expected at most seconds, 1; found 2"),
        (KILL | {"byte": 1}, "byte: expected corrupt for do, which take it; found kill"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(fault, said):
    """Where it is, what was expected and found; and it is the only one."""
    plan, problems = parse_plan({"fault": [fault]}, "plan.toml")
    assert len(problems) == 1
    assert said in str(problems[0])
    assert str(problems[0]).startswith("plan.toml: fault 1: ")
    assert plan.faults == ()


def test_all_mistakes_are_told_at_once(tmp_path):
    """Of every fault, and of what is none."""
    file = tmp_path / "plan.toml"
    file.write_text('sed = 1\n[[fault]]\ndo = "kil"\nat = "push.befor"\n[[fault]]\ndo = "pause"\nat = "nowhere"\n')
    with pytest.raises(InputError) as raised:
        load_plan(file)
    fields = [problem.field.removeprefix(f"{file}: ") for problem in raised.value.problems]
    assert fields == ["sed", "fault 1: do", "fault 1: at", "fault 2: at", "fault 2: seconds"]


@pytest.mark.parametrize("table", [{}, {"fault": []}, {"fault": {"do": "kill"}}, {"fault": [1]}])
def test_a_plan_of_nothing_is_a_mistake(table):
    """Whoever gives a plan wants something to go wrong."""
    _, [problem] = parse_plan(table, "plan.toml")
    assert "plan.toml: fault: expected one or more tables [[fault]]" in str(problem)
