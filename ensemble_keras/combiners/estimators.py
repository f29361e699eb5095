"""Estimators: a linear scikit-learn classifier, fitted, as one dense layer with softmax."""

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

# A converted layer gives the estimator's own probabilities within this, or the estimator is refused.
_TOLERANCE = 1e-6
# The same of the layer as it computes, in float32.
_ROUNDED = 1e-3
_CHECKED_ROWS = 1000


def fit_linear_estimator(estimator, x, y, *, sample_weight=None):
    """Fits a clone of a scikit-learn classifier, and returns the dense layer that gives its probabilities.

    Its probabilities must be the softmax of linear scores (those of `LogisticRegression`, of
    `LinearDiscriminantAnalysis`, or of `SGDClassifier(loss="log_loss")` for two classes), and in a pipeline every
    step before it must be affine (`StandardScaler`, `MinMaxScaler`, `PCA`, …). Both are checked on the rows.

    Args:
        estimator: A scikit-learn classifier or a pipeline that ends in one. It is not changed.
        x: Float array `(n, d)`.
        y: Int array `(n,)` of class indices, all classes.
        sample_weight: Array `(n,)` or `None`.

    Returns:
        Kernel `(d, num_classes)` and bias `(num_classes,)`, float64.

    Raises:
        TypeError: If it is not a classifier with `fit` and `predict_proba`.
        ValueError: If it is not linear, or too large for float32; the message says which part, and why.
    """
    name = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise TypeError(f"`final_estimator` must be a scikit-learn classifier. Received: {estimator!r}.")
    pipeline = clone(estimator) if hasattr(estimator, "steps") else make_pipeline(clone(estimator))
    x, last = np.asarray(x, "float64"), pipeline.steps[-1][0]
    pipeline.fit(x, y, **({} if sample_weight is None else {f"{last}__sample_weight": sample_weight}))
    if not hasattr(pipeline, "predict_proba"):
        raise _refusal(name, "it gives no probabilities (`predict_proba`)")
    rows = x[:: max(1, len(x) // _CHECKED_ROWS)]
    matrix, offset = _affine_part(pipeline[:-1], rows, name)
    kernel, bias = _scores(pipeline[-1], name)
    kernel, bias = matrix @ kernel, offset @ kernel + bias
    expected = pipeline.predict_proba(rows)
    if np.abs(softmax(rows @ kernel + bias, axis=1) - expected).max() > _TOLERANCE:
        raise _refusal(name, "its probabilities are not the softmax of its linear scores")
    rounded = rows.astype("float32") @ kernel.astype("float32") + bias.astype("float32")
    if not np.abs(softmax(rounded, axis=1) - expected).max() <= _ROUNDED:
        raise _refusal(name, "its weights are too large for float32, as where a step divides by next to nothing")
    return kernel, bias


def _affine_part(steps, x, name):
    """Returns matrix and offset of the steps before the classifier: `steps.transform(x) == x @ matrix + offset`."""
    d = x.shape[1]
    if not len(steps):
        return np.eye(d), np.zeros(d)
    offset = steps.transform(np.zeros((1, d)))[0]
    matrix = steps.transform(np.eye(d)) - offset
    expected = steps.transform(x)
    if not np.allclose(x @ matrix + offset, expected, rtol=0, atol=_TOLERANCE * max(1.0, np.abs(expected).max())):
        listed = " and ".join(type(step).__name__ for _, step in steps.steps)
        raise _refusal(name, f"the step before it, {listed}, is not affine")
    return matrix, offset


def _scores(classifier, name):
    """Returns kernel and bias of a classifier's linear scores, one column per class."""
    if not hasattr(classifier, "coef_"):
        raise _refusal(name, f"{type(classifier).__name__} has no coefficients (`coef_`)")
    kernel, bias = classifier.coef_.T, np.broadcast_to(classifier.intercept_, len(classifier.coef_))
    if kernel.shape[1] > 1:
        return kernel, bias
    # Two classes: one score, that of the second.
    return np.hstack([np.zeros_like(kernel), kernel]), np.append(0.0, bias)


def _refusal(name, reason):
    return ValueError(
        f"`final_estimator` must be exactly a dense layer with softmax, or the saved model would not be Keras alone. "
        f"Received: {name}: {reason}. Take `LogisticRegression`, alone or after `StandardScaler`."
    )
