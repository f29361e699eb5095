import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from ensemble_keras.members import heads
from ensemble_keras.members.heads import solve_linear_head
from ensemble_keras.members.standardisation import Standardisation


def classes_that_overlap(n, d, num_classes, *, seed=0):
    """Features of correlated, unequally scaled classes that no linear head can tell apart completely."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % num_classes)
    centres = rng.normal(size=(num_classes, d)) * 0.25
    mixing = rng.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
    features = (centres[y] + rng.normal(size=(n, d))) @ mixing * rng.uniform(0.1, 10, d) + rng.normal(size=d)
    return features.astype("float32"), y


def stratified(y, n_splits=5):
    folds = np.empty(len(y), int)
    for fold, (_, held_out) in enumerate(StratifiedKFold(n_splits).split(y, y)):
        folds[held_out] = fold
    return folds


def standardised(features):
    scaling = Standardisation(features)
    return (features - scaling.mean) / scaling.scale


def scikit_learn_out_of_fold(features, y, folds, strength, class_weight=None):
    x = standardised(features)
    solver = {"solver": "newton-cholesky"} if x.shape[1] < 100 else {"tol": 1e-6, "max_iter": 2_000}
    out = np.zeros((len(y), y.max() + 1))
    for fold in np.unique(folds):
        held_out = folds == fold
        model = LogisticRegression(C=strength, class_weight=class_weight, **solver)
        out[held_out] = model.fit(x[~held_out], y[~held_out]).predict_proba(x[held_out])
    return out


@pytest.fixture(params=["side by side", "one by one"])
def way(request, monkeypatch):
    """Both ways of going through folds and strengths, whatever the number of classes."""
    monkeypatch.setattr(heads, "_COLUMNS_AT_ONCE", 10**6 if request.param == "side by side" else 0)
    return request.param


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_held_out_probabilities_are_those_of_scikit_learn(num_classes, strength, way):
    features, y = classes_that_overlap(400, 30, num_classes)
    folds = stratified(y)
    head = solve_linear_head(features, y, folds, num_classes=num_classes, strengths=[strength])
    expected = scikit_learn_out_of_fold(features, y, folds, strength)
    assert head.strength == strength
    assert head.log_loss == pytest.approx(log_loss(y, expected), abs=0.002)
    assert head.log_loss == pytest.approx(log_loss(y, head.out_of_fold), abs=1e-5)
    np.testing.assert_allclose(head.out_of_fold, expected, atol=0.03)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_head_for_new_images_is_the_mean_of_the_folds_heads(num_classes, way):
    features, y = classes_that_overlap(400, 30, num_classes)
    folds, x = stratified(y), standardised(features)
    head = solve_linear_head(features, y, folds, num_classes=num_classes, strengths=[0.1])
    models = [LogisticRegression(C=0.1, solver="newton-cholesky").fit(x[folds != f], y[folds != f]) for f in range(5)]
    logits = np.mean([model.decision_function(x) for model in models], axis=0).reshape(400, -1)
    logits = np.concatenate([-logits / 2, logits / 2], axis=1) if num_classes == 2 else logits
    centred = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(features.astype("float64") @ head.kernel + head.bias, centred, atol=0.05)
    assert head.kernel.dtype == head.bias.dtype == head.out_of_fold.dtype == np.float32


def test_the_strength_with_the_lowest_held_out_loss_is_chosen(way):
    features, y = classes_that_overlap(300, 60, 3)
    strengths = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
    folds = stratified(y)
    head = solve_linear_head(features, y, folds, num_classes=3, strengths=strengths[::-1])
    losses = {c: log_loss(y, scikit_learn_out_of_fold(features, y, folds, c)) for c in strengths}
    assert head.strength == min(losses, key=losses.get)
    assert head.strength == min(head.strengths, key=head.strengths.get)
    if way == "side by side":
        assert head.strengths == pytest.approx(losses, rel=0.02)


def test_the_default_strengths_reach_the_best_loss(way):
    features, y = classes_that_overlap(300, 60, 2)
    folds = stratified(y)
    fine = [log_loss(y, scikit_learn_out_of_fold(features, y, folds, c)) for c in np.geomspace(1e-4, 10, 11)]
    assert solve_linear_head(features, y, folds, num_classes=2).log_loss < min(fine) + 0.01


def test_class_weights_are_those_of_scikit_learn(way):
    features, y = classes_that_overlap(400, 20, 3)
    rare = np.concatenate([np.flatnonzero(y == 0)[:20], np.flatnonzero(y > 0)])
    features, y, weights = features[rare], y[rare], [6.0, 1.0, 0.5]
    folds = stratified(y)
    head = solve_linear_head(features, y, folds, num_classes=3, strengths=[0.1], class_weight=np.array(weights))
    expected = scikit_learn_out_of_fold(features, y, folds, 0.1, class_weight=dict(enumerate(weights)))
    np.testing.assert_allclose(head.out_of_fold, expected, atol=0.03)
    assert head.log_loss == pytest.approx(log_loss(y, expected, sample_weight=np.take(weights, y)), abs=0.002)


def test_the_order_of_rows_does_not_matter(way, rng):
    features, y = classes_that_overlap(200, 30, 3)
    folds, order = stratified(y), rng.permutation(200)
    head = solve_linear_head(features, y, folds, num_classes=3)
    shuffled = solve_linear_head(features[order], y[order], folds[order], num_classes=3)
    assert shuffled.strength == head.strength
    np.testing.assert_allclose(shuffled.out_of_fold, head.out_of_fold[order], atol=0.01)


def test_the_same_input_gives_the_same_head(way):
    features, y = classes_that_overlap(200, 30, 3)
    first, second = (solve_linear_head(features, y, stratified(y), num_classes=3) for _ in range(2))
    np.testing.assert_array_equal(first.kernel, second.kernel)
    np.testing.assert_array_equal(first.out_of_fold, second.out_of_fold)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_row_is_predicted_by_a_head_that_did_not_see_its_label(num_classes, way):
    features, y = classes_that_overlap(200, 300, num_classes)
    folds = stratified(y)
    head = solve_linear_head(features, y, folds, num_classes=num_classes, strengths=[1.0])
    changed = np.where(folds == 2, (y + 1) % num_classes, y)
    other = solve_linear_head(features, changed, folds, num_classes=num_classes, strengths=[1.0])
    np.testing.assert_allclose(other.out_of_fold[folds == 2], head.out_of_fold[folds == 2], atol=1e-5)
    assert not np.allclose(other.out_of_fold[folds == 1], head.out_of_fold[folds == 1], atol=0.01)


def test_labels_without_meaning_are_learnt_by_heart_and_not_held_out(way):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(600, 900)).astype("float32")
    y = rng.permutation(np.arange(600) % 4)
    head = solve_linear_head(features, y, stratified(y), num_classes=4)
    assert np.mean(head.out_of_fold.argmax(axis=1) == y) == pytest.approx(0.25, abs=0.06)
    assert head.log_loss > np.log(4) - 0.01
    weak = solve_linear_head(features, y, stratified(y), num_classes=4, strengths=[1.0])
    assert np.mean((features @ weak.kernel + weak.bias).argmax(axis=1) == y) == 1
    assert np.mean(weak.out_of_fold.argmax(axis=1) == y) == pytest.approx(0.25, abs=0.06)


def test_features_of_any_scale_constant_and_repeated_ones_change_nothing(way):
    features, y = classes_that_overlap(300, 20, 2)
    folds = stratified(y)
    plain = solve_linear_head(features, y, folds, num_classes=2, strengths=[0.1])
    for scale in (1e-6, 1e6, np.geomspace(0.3, 3, 20)):
        scaled = (features * scale).astype("float32")
        head = solve_linear_head(scaled, y, folds, num_classes=2, strengths=[0.1])
        np.testing.assert_allclose(head.out_of_fold, plain.out_of_fold, atol=0.01)
    constant = np.concatenate([features, np.full((300, 3), [0.0, 7.3, 1e6], "float32")], axis=1)
    head = solve_linear_head(constant, y, folds, num_classes=2, strengths=[0.1])
    np.testing.assert_allclose(head.out_of_fold, plain.out_of_fold, atol=0.01)
    twice = solve_linear_head(np.repeat(features, 2, axis=1), y, folds, num_classes=2, strengths=[0.05])
    np.testing.assert_allclose(twice.out_of_fold, plain.out_of_fold, atol=0.02)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_classes_that_can_be_told_apart_completely_give_finite_heads(num_classes, way):
    y = np.arange(60) % num_classes
    features = (np.eye(num_classes)[y] * 100 + np.random.default_rng(0).normal(size=(60, num_classes))).astype(
        "float32"
    )
    head = solve_linear_head(features, y, stratified(y), num_classes=num_classes, strengths=[1e-2, 1e4])
    assert (head.out_of_fold.argmax(axis=1) == y).all()
    assert np.isfinite(head.kernel).all()
    assert np.isfinite(head.bias).all()
    assert head.log_loss < 0.05


def test_features_that_say_nothing_give_the_frequencies_of_the_classes(way):
    y = np.repeat([0, 1, 2], [60, 30, 10])
    head = solve_linear_head(np.zeros((100, 4), "float32"), y, stratified(y), num_classes=3, strengths=[1.0])
    np.testing.assert_allclose(head.out_of_fold, np.tile([0.6, 0.3, 0.1], (100, 1)), atol=0.01)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_twenty_rows_of_many_features(num_classes, way):
    features, y = classes_that_overlap(20, 1280, num_classes)
    folds = stratified(y, 2)
    head = solve_linear_head(features, y, folds, num_classes=num_classes, strengths=[0.01])
    assert head.log_loss == pytest.approx(log_loss(y, scikit_learn_out_of_fold(features, y, folds, 0.01)), abs=0.002)


def test_a_class_that_no_other_fold_holds_gets_nearly_nothing(way):
    features, y = classes_that_overlap(120, 10, 3)
    y = np.where((y == 2) & (np.arange(120) >= 24), 0, y)
    folds = np.arange(120) // 24
    head = solve_linear_head(features, y, folds, num_classes=4, strengths=[0.1])
    assert head.out_of_fold[folds == 0, 2].max() < 0.01
    assert head.out_of_fold[:, 3].max() < 0.01
    assert np.isfinite(head.log_loss)
    np.testing.assert_allclose(head.out_of_fold.sum(axis=1), 1, atol=1e-6)
    seen = solve_linear_head(features, y, (folds + np.arange(120)) % 5, num_classes=4, strengths=[0.1])
    shares = [np.mean((features @ h.kernel + h.bias).argmax(axis=1) == 2) for h in (head, seen)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


def test_progress_is_told():
    features, y = classes_that_overlap(60, 5, 2)
    calls = []
    solve_linear_head(features, y, stratified(y), num_classes=2, progress=lambda: calls.append(1))
    assert calls


X, Y, FOLDS = np.eye(6, dtype="float32"), np.arange(6) % 2, np.arange(6) % 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": X[0]}, r"`features` must hold floats, shape \(n, d\).*shape \(6,\)"),
        ({"features": X[:, :0]}, r"at least one row and one column. Received: shape \(6, 0\)"),
        ({"features": X.astype(int)}, "dtype int64"),
        ({"features": np.where(X == 1, np.nan, X)[[0, 0, 0, 0, 0, 0]]}, "NaN or infinity in 6 rows: 0, 1"),
        ({"y": Y[:5]}, "`y` must hold one label per image"),
        ({"y": Y + 1}, r"`y` must hold classes in 0 … num_classes - 1.*Received: 1 … 2, num_classes=2"),
        ({"num_classes": 1, "y": Y * 0}, "num_classes=1"),
        ({"folds": FOLDS[:5]}, "`folds` must hold one label"),
        ({"folds": FOLDS * 0 + 4}, "at least two folds. Received: 4 for every row"),
        ({"class_weight": [1.0]}, "`class_weight` must hold 2 positive numbers"),
        ({"class_weight": [1.0, 0.0]}, "`class_weight` must hold 2 positive numbers"),
        ({"strengths": []}, "`strengths` must hold one or more positive numbers"),
        ({"strengths": [1.0, -1.0]}, r"positive numbers. Received: \[1.0, -1.0\]"),
        ({"strengths": [np.inf]}, "`strengths`"),
    ],
)
def test_other_input_is_refused(change, message):
    arguments = {"features": X, "y": Y, "folds": FOLDS, "num_classes": 2} | change
    features, y, folds = (arguments.pop(name) for name in ("features", "y", "folds"))
    with pytest.raises(ValueError, match=message):
        solve_linear_head(features, y, folds, **arguments)
