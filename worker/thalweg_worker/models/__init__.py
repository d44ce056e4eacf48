"""Models: what a job trains.

`protocol.py` says what a model is; `linear.py`, `mlp.py` and `convnet.py` are the built-in ones;
`source.py`, `user_file.py` and `user_call.py` load a user's; `checks.py` finds what one can get wrong before anything
starts.
"""

from thalweg_worker.models.checks import check_model
from thalweg_worker.models.initialisation import generator, initial_parameters
from thalweg_worker.models.protocol import Model, Parameters, Predictor
from thalweg_worker.models.source import BUILT_IN, ModelSource, build_model
from thalweg_worker.models.user_file import UserFile
from thalweg_worker.models.weights import load_init

__all__ = [
    "BUILT_IN",
    "Model",
    "ModelSource",
    "Parameters",
    "Predictor",
    "UserFile",
    "build_model",
    "check_model",
    "generator",
    "initial_parameters",
    "load_init",
]
