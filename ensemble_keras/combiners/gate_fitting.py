"""Gate fitting: the weights of an `ArchitectureGate`, by full-batch L-BFGS on out-of-fold predictions."""

import numpy as np
from keras import ops
from scipy import optimize, special

from ensemble_keras.combiners import base

# Fitting ends when the watched loss has not fallen for so many iterations.
ITERATIONS, PATIENCE = 150, 20
# Penalty on the squares of all kernels, per row: what keeps a small network on few rows from extremes.
_DECAY = 1e-4


def fit_gate(gate, part, watched):
    """Fits a built gate in place, from its weights on, and leaves it with its best ones; the start may be these.

    The network is small and the rows are few: the gradient over all rows takes milliseconds, and L-BFGS needs a
    hundred of them where stochastic steps need thousands.

    Args:
        gate: An `ArchitectureGate`, built.
        part: `(inputs, y, weights)` to fit on: `inputs[0]` is a list of arrays `(n, num_classes)`, one per member;
            class indices `(n,)`; row weights `(n,)`.
        watched: The same of other rows; the weights with the lowest loss on them are kept.
    """
    loss_of, watch = _Loss(gate, *part), _Loss(gate, *watched)
    theta = _flat(gate.get_weights())
    best = {"loss": watch(theta)[0], "theta": theta, "age": 0}

    def look(intermediate_result):
        loss = watch(intermediate_result.x)[0]
        best["age"] += 1
        if loss < best["loss"]:
            best.update(loss=loss, theta=intermediate_result.x.copy(), age=0)
        if best["age"] >= PATIENCE:
            raise StopIteration

    options = {"maxiter": ITERATIONS, "maxcor": 20}
    optimize.minimize(loss_of, theta, jac=True, method="L-BFGS-B", callback=look, options=options)
    gate.set_weights(_split(best["theta"], gate.get_weights()))


class _Loss:
    """The mean log loss of the mixture over some rows, with its gradient, in NumPy."""

    def __init__(self, gate, inputs, y, weights):
        predictions = inputs[0]
        tensors = [base.as_probabilities(ops.convert_to_tensor(p)) for p in predictions]
        seen = [ops.convert_to_numpy(x) for x in gate.seen(tensors)]
        # (rows, members, …) as one matrix of rows times members.
        self._x = np.stack(seen, axis=1).astype("float64").reshape(-1, seen[0].shape[1])
        of_true = [np.asarray(p)[np.arange(len(y)), y] for p in map(ops.convert_to_numpy, tensors)]
        self._p = np.maximum(np.stack(of_true, axis=1), base.SMALLEST_PROBABILITY).astype("float64")
        self._shares = (weights / weights.sum()).astype("float64")
        self._shapes = gate.get_weights()

    def __call__(self, theta):
        arrays = _split(theta, self._shapes)
        layers = [*zip(arrays[:-1:2], arrays[1:-1:2], strict=True)]
        outputs = [self._x]
        for kernel, bias in layers:
            outputs.append(np.maximum(outputs[-1] @ kernel + bias, 0))
        weights = special.softmax((outputs[-1] @ arrays[-1]).reshape(self._p.shape), axis=1)
        mixed = (weights * self._p).sum(axis=1)
        kernels = arrays[::2]
        loss = -self._shares @ np.log(mixed) + _DECAY / 2 * sum((kernel**2).sum() for kernel in kernels)
        # Of a member's score: its weight before minus its weight after the label is known.
        slope = (weights - weights * self._p / mixed[:, None]) * self._shares[:, None]
        slope, gradients = slope.reshape(-1, 1), []
        for kernel, output in zip(kernels[::-1], outputs[::-1], strict=True):
            own = [output.T @ slope + _DECAY * kernel]
            gradients = [*own, *([] if kernel is kernels[-1] else [slope.sum(axis=0)]), *gradients]
            slope = (slope @ kernel.T) * (output > 0)
        return loss, _flat(gradients)


def _flat(arrays):
    return np.concatenate([np.asarray(array, "float64").ravel() for array in arrays])


def _split(theta, like):
    parts = np.split(theta, np.cumsum([array.size for array in like])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, like, strict=True)]
