"""Update rules: what a step makes of parameters and gradient. `rule.py` says what a rule is.

`make_rule` makes one by its name in the job file. Names, formulas, initial state and the place of epsilon are those of
`torch.optim`, so that hyper-parameters carry over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thalweg_cluster.rules.adagrad import Adagrad
from thalweg_cluster.rules.adam import Adam, AdamW
from thalweg_cluster.rules.rmsprop import RMSProp
from thalweg_cluster.rules.rule import Block, Blocks, BlockUpdate, Rule, Slot
from thalweg_cluster.rules.sgd import SGD, Momentum, Nesterov

__all__ = ["RULES", "Block", "BlockUpdate", "Blocks", "Rule", "Slot", "make_rule"]

RULES: Mapping[str, Callable[..., Rule]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": Adagrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
}


def make_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """The rule `name` with its options as in the job file; `learning_rate` among them is the schedule's.

    KeyError for a name that is none, TypeError for an option that the rule does not take: the job file's reader has
    refused both before.
    """
    return RULES[name](**{key: value for key, value in options.items() if key != "learning_rate"})
