"""Gate fitting: the weights of an `ArchitectureGate`, by full-batch L-BFGS on out-of-fold predictions."""

import numpy as np
import threadpoolctl
from keras import ops
from scipy import optimize, special

from ensemble_keras.combiners import base

# Fitting ends when the watched loss has not fallen for so many iterations.
ITERATIONS, PATIENCE = 300, 10
# Penalty on the squares of the kernels, as of so many rows: what keeps a small network on few rows from extremes.
_DECAY = 3.0
_LEAST_SHARPNESS = 0.05


def fit_gate(gate, part, watched):
    """Fits a built gate in place, from its weights on, and leaves it with its best ones; the start may be these.

    The network is small and the rows are few: the gradient over all rows takes milliseconds, and L-BFGS needs a
    few dozen of them where stochastic steps need thousands.

    Args:
        gate: An `ArchitectureGate`, built.
        part: `(inputs, y, weights)` to fit on: `inputs[0]` is a list of arrays `(n, num_classes)`, one per member;
            class indices `(n,)`; row weights `(n,)`.
        watched: The same of other rows; the weights with the lowest loss on them are kept.
    """
    loss_of, watch = _Loss(gate, *part), _Loss(gate, *watched)
    theta = _flat(gate.get_weights())
    best = {"loss": watch.mean(theta), "theta": theta, "age": 0}

    def look(intermediate_result):
        loss = watch.mean(intermediate_result.x)
        best["age"] += 1
        if loss < best["loss"]:
            best.update(loss=loss, theta=intermediate_result.x.copy(), age=0)
        if best["age"] >= PATIENCE:
            raise StopIteration

    options = {"maxiter": ITERATIONS, "maxcor": 20}
    # The last weight is the sharpness.
    bounds = [(None, None)] * (len(theta) - 1) + [(_LEAST_SHARPNESS, None)]
    # The matrices are small: on a busy machine several threads wait for each other.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        optimize.minimize(loss_of, theta, jac=True, bounds=bounds, method="L-BFGS-B", callback=look, options=options)
    gate.set_weights(_split(best["theta"], gate.get_weights()))


class _Loss:
    """The mean log loss of the gate over some rows, with a penalty and the gradient, in NumPy.

    Weights are one vector: kernel and bias of each hidden layer, the kernel of the score, the sharpness.
    """

    def __init__(self, gate, inputs, y, weights):
        tensors = [base.as_probabilities(ops.convert_to_tensor(p)) for p in inputs[0]]
        seen = [ops.convert_to_numpy(x) for x in gate.seen(tensors)]
        # (rows, members, …) as one matrix of rows times members.
        self._x = np.stack(seen, axis=1, dtype="float64").reshape(-1, seen[0].shape[1])
        logs = [ops.convert_to_numpy(base.log_probabilities(p)) for p in tensors]
        self._logs = np.stack(logs, axis=1, dtype="float64")
        self._true = np.arange(len(y)), y
        self._shares = (weights / weights.sum()).astype("float64")
        self._decay = _DECAY / len(y)
        self._shapes = gate.get_weights()

    def mean(self, theta):
        """Returns the mean log loss, without the penalty."""
        return self._forward(_split(theta, self._shapes))[0]

    def __call__(self, theta):
        *arrays, sharpness = _split(theta, self._shapes)
        loss, outputs, weights, mean, combined = self._forward([*arrays, sharpness])
        kernels = arrays[::2]
        penalty = self._decay / 2 * sum((kernel**2).sum() for kernel in kernels)
        combined[self._true] -= 1
        # Slopes: of the sharpened mean, of each member's weight, of its score.
        combined *= self._shares[:, None]
        of_weights = np.einsum("nc,nmc->nm", float(sharpness[0, 0]) * combined, self._logs)
        slope = weights * (of_weights - (weights * of_weights).sum(axis=1, keepdims=True))
        slope, gradients = slope.reshape(-1, 1), [(combined * mean).sum()]
        for index in reversed(range(len(kernels))):
            bias = [] if index == len(kernels) - 1 else [slope.sum(axis=0)]
            gradients = [outputs[index].T @ slope + self._decay * kernels[index], *bias, *gradients]
            slope = (slope @ kernels[index].T) * (outputs[index] > 0)
        return loss + penalty, _flat(gradients)

    def _forward(self, arrays):
        *arrays, score, sharpness = arrays
        outputs = [self._x]
        for kernel, bias in zip(arrays[::2], arrays[1::2], strict=True):
            outputs.append(np.maximum(outputs[-1] @ kernel + bias, 0))
        weights = special.softmax((outputs[-1] @ score).reshape(self._logs.shape[:2]), axis=1)
        mean = np.einsum("nm,nmc->nc", weights, self._logs)
        combined = special.log_softmax(float(sharpness[0, 0]) * mean, axis=1)
        return -self._shares @ combined[self._true], outputs, weights, mean, np.exp(combined)


def _flat(arrays):
    return np.concatenate([np.asarray(array, "float64").ravel() for array in arrays])


def _split(theta, like):
    parts = np.split(theta, np.cumsum([array.size for array in like])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, like, strict=True)]
