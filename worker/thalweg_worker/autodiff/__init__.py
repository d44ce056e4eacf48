"""Reverse-mode automatic differentiation: the chain rule over a recorded chain of tensor operations.

    from thalweg_worker import autodiff as ad

    def loss(params, batch):
        hidden = ad.relu(batch.x @ params["W1"] + params["b1"])
        return ad.softmax_cross_entropy(hidden @ params["W2"] + params["b2"], batch.y)

    value_and_grad = ad.value_and_grad(loss)
    value, gradient = value_and_grad(params, batch, out=gradient_buffers)
    step = value_and_grad.bind(params, batch, out=gradient_buffers)     # for a loop over buffers that stay: step()

The function is recorded once, then replayed. At the first call it runs on tensors, which have a shape and a dtype and
no values; each operation writes itself into a chain, the backward pass is written behind it, and one block of memory
is laid out for all of it. That call and every later one of the same shapes, dtypes and plain values replays the chain:
a flat list of NumPy calls with `out=`, in place where nobody needs the old value, without allocation.

So Python runs at recording only, as under `jax.jit`:

    if loss > 10: loss = loss / 2            TypeError: a tensor has no value to branch on
    loss = ad.where(loss > 10, loss / 2, loss)      is decided at each replay

    noise = numpy.random.normal(size=8)      drawn once, then the same numbers at every step
    ad.dropout(x, 0.5, batch.key)            a new mask at every step

    self.calls += 1                          counts recordings, not calls
    scale = 0.1 if self.calls < 9 else 1.0   is frozen at what it was when recorded; pass it as an argument: as an array
                                             it may change freely, as a plain value each new one is a new recording

Arrays that the function captures from outside are constants, and must not be changed afterwards.

Rules of the numbers: a chain computes in one floating dtype, that of the parameters (float64 if any of them is);
arguments and constants of another floating dtype are converted. Gradients have their parameter's dtype. The same
inputs give the same bits at every replay, in any process, wherever the arrays lie (on the CPU, with a fixed number of
BLAS threads; for the GPU see namespace.py).

From the outside in: transform.py (value_and_grad, grad, forward), chain.py (record), gradient.py (differentiate),
plan.py (plan), schedule.py (ask and tell), replay.py (replay); then the operations, by family.
"""

from thalweg_worker.autodiff.activations import relu, sigmoid, tanh
from thalweg_worker.autodiff.arithmetic import (
    add,
    compare,
    divide,
    exp,
    log,
    multiply,
    negative,
    power,
    sqrt,
    subtract,
    where,
)
from thalweg_worker.autodiff.convolution import average_pool2d, conv2d, max_pool2d
from thalweg_worker.autodiff.indexing import embedding, index
from thalweg_worker.autodiff.losses import log_softmax, mean_squared_error, softmax_cross_entropy
from thalweg_worker.autodiff.normalization import dropout, layer_norm
from thalweg_worker.autodiff.products import matmul
from thalweg_worker.autodiff.reductions import max, mean, sum
from thalweg_worker.autodiff.shaping import concatenate, reshape, transpose
from thalweg_worker.autodiff.tensor import Tensor
from thalweg_worker.autodiff.transform import forward, grad, value_and_grad

__all__ = [
    "Tensor",
    "add",
    "average_pool2d",
    "compare",
    "concatenate",
    "conv2d",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "forward",
    "grad",
    "index",
    "layer_norm",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "mean",
    "mean_squared_error",
    "multiply",
    "negative",
    "power",
    "relu",
    "reshape",
    "sigmoid",
    "softmax_cross_entropy",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
    "transpose",
    "value_and_grad",
    "where",
]
