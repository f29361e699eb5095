import keras
import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import softmax
from tiny_members import tiny_member

from ensemble_keras.combiners import gate_fitting
from ensemble_keras.combiners.ensemble import build_ensemble
from ensemble_keras.combiners.fitting import combine, fit_combiner, out_of_fold_combined
from ensemble_keras.combiners.gating import ArchitectureGate
from ensemble_keras.combiners.stacking import StackedMetaLearner
from ensemble_keras.combiners.voting import GeometricVoting, SoftVoting
from ensemble_keras.measures.metrics import log_losses

DESCRIPTORS = [{"depth": 16.0, "skill": 0.8}, {"depth": 53.0, "skill": 0.9}, {"depth": 121.0, "skill": 0.7}]
CLASSES = 4


def specialist_table(seed=0, n=1500):
    """One member knows two classes of four and is as sure about the others; two know a little of all."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % CLASSES)

    def member(share_right):
        right = rng.random(n) < np.asarray(share_right)[y]
        said = np.where(right, y, (y + rng.integers(1, CLASSES, n)) % CLASSES)
        return softmax(0.5 * rng.normal(size=(n, CLASSES)) + 3.5 * np.eye(CLASSES)[said], axis=1)

    members = [member([0.95, 0.95, 0.4, 0.4]), member([0.6, 0.6, 0.75, 0.75]), member([0.6, 0.6, 0.75, 0.75])]
    return np.stack(members, axis=1).astype("float32"), y


@pytest.fixture(scope="module")
def table():
    return specialist_table()


@pytest.fixture(scope="module")
def fitted(table):
    return fit_combiner(ArchitectureGate(DESCRIPTORS), *table)


class Blind(ArchitectureGate):
    """A gate that does not see the predictions that it weighs."""

    def seen(self, predictions):
        described = len(self.descriptors[0])
        return [
            keras.ops.concatenate([0.0 * x[:, :-described], x[:, -described:]], axis=-1)
            for x in super().seen(predictions)
        ]


def weights_of(gate, predictions):
    """The members' weights for each image, shape `(n, members)`."""
    return keras.ops.convert_to_numpy(gate.weigh(list(predictions.swapaxes(0, 1))))


def out_of_fold(combiner, table):
    """Accuracy and log loss of a combiner on rows that it was not fitted on."""
    predictions, y = table
    combined = out_of_fold_combined(combiner, predictions, y, np.arange(len(y)) % 5)
    return np.mean(combined.argmax(axis=1) == y), log_losses(y, combined).mean()


def test_it_learns_where_a_member_is_good_and_needs_descriptions_and_predictions_for_it(table):
    accuracy, loss = out_of_fold(ArchitectureGate(DESCRIPTORS), table)
    soft, stacking = out_of_fold(SoftVoting(), table), out_of_fold(StackedMetaLearner(CLASSES), table)
    assert accuracy > soft[0] + 0.015
    assert loss < soft[1] - 0.08
    assert accuracy > stacking[0] - 0.015
    undescribed = out_of_fold(ArchitectureGate([DESCRIPTORS[0]] * 3), table)
    assert undescribed[0] < accuracy - 0.01
    assert undescribed[1] > loss + 0.02
    blind = out_of_fold(Blind(DESCRIPTORS), table)
    assert blind[0] < accuracy - 0.015
    assert blind[1] > loss + 0.03


def test_it_trusts_the_specialist_on_its_classes(table, fitted):
    predictions = table[0]
    weights = weights_of(fitted, predictions)
    said = predictions[:, 0].argmax(axis=1)
    assert weights[said < 2, 0].mean() > weights[said >= 2, 0].mean() + 0.1


def test_on_few_rows_of_many_classes_it_learns_what_stacking_cannot():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 20
    # The first member is the best; a line per class and member has 60 x 20 weights.
    strengths = np.array([3.0, 1.0, 1.0])[:, None, None]
    logits = rng.normal(size=(3, 300, 20)) + strengths * np.eye(20)[y]
    table = softmax(1.5 * logits, axis=2).transpose(1, 0, 2).astype("float32"), y
    gate, soft, stacking = (
        out_of_fold(c, table) for c in (ArchitectureGate(DESCRIPTORS), SoftVoting(), StackedMetaLearner(20))
    )
    assert gate[1] < min(soft[1], stacking[1])


def test_it_sees_what_it_says_it_sees(table):
    p = table[0][:50]
    gate = ArchitectureGate(
        [{"depth": 100.0, "skill": 0.75}, {"depth": 50.0, "skill": 0.5}, {"depth": 0.0, "skill": 0}]
    )
    found = gate.seen([keras.ops.convert_to_tensor(p[:, i]) for i in range(3)])
    for i, described in enumerate(([1.0, 1.0], [0.0, 0.0], [-1.0, -2.0])):
        mine, others = p[:, i], np.delete(p, i, axis=1)
        entropy = -(mine * np.log(mine)).sum(axis=1) / np.log(CLASSES)
        margin = np.diff(np.sort(mine, axis=1)[:, -2:])[:, 0]
        # The chance that two draws agree, with each other member in turn.
        agreement = np.mean([(mine * others[:, j]).sum(axis=1) for j in range(2)], axis=0)
        columns = [mine, p.mean(axis=1), np.stack([entropy, margin, agreement], axis=1), np.tile(described, (50, 1))]
        np.testing.assert_allclose(found[i], np.hstack(columns), atol=1e-5)


def test_before_it_is_fitted_it_is_geometric_voting(table):
    predictions = table[0]
    for units in ((16,), (), (4, 3)):
        gate = ArchitectureGate(DESCRIPTORS, units=units)
        np.testing.assert_allclose(combine(gate, predictions), combine(GeometricVoting(), predictions), atol=1e-6)


def test_where_there_is_nothing_to_learn_it_stays_near_geometric_voting():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    table = softmax(rng.normal(size=(200, 3, 4)) + np.eye(4)[y][:, None], axis=2).astype("float32"), y
    gate, vote = out_of_fold(ArchitectureGate(DESCRIPTORS), table), out_of_fold(GeometricVoting(), table)
    assert gate[1] < vote[1] + 0.02
    assert gate[0] > vote[0] - 0.02


def test_it_never_turns_what_members_say_upside_down():
    y = np.arange(200) % 2
    rng = np.random.default_rng(0)
    # Wrong more often than right: a sharpness below 0 would have the lowest loss.
    said = np.where(rng.random((200, 3)) < 0.7, 1 - y[:, None], y[:, None])
    predictions = np.where(said[:, :, None] == [0, 1], 0.8, 0.2)
    gate = fit_combiner(ArchitectureGate(DESCRIPTORS, units=()), predictions, y)
    assert float(gate.get_weights()[-1].item()) == pytest.approx(gate_fitting._LEAST_SHARPNESS)


def test_the_start_is_kept_where_nothing_watched_gets_better():
    y = np.arange(90) % 3
    inputs = [np.where(np.eye(3)[y] == 1, 0.5, 0.25).astype("float32")] * 3
    gate = ArchitectureGate(DESCRIPTORS)
    gate([keras.ops.convert_to_tensor(p) for p in inputs])
    gate.draw_weights(0)
    start = gate.get_weights()
    # Labels to fit on that make it less sure of what is watched.
    gate_fitting.fit_gate(gate, ([inputs], (y + 1) % 3, np.ones(90)), ([inputs], y, np.ones(90)))
    for before, after in zip(start, gate.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_the_order_of_the_members_does_not_matter(table, fitted):
    predictions, order = table[0], [2, 0, 1]
    turned = fitted.with_descriptors([DESCRIPTORS[i] for i in order])
    np.testing.assert_allclose(combine(turned, predictions[:, order]), combine(fitted, predictions), atol=1e-6)
    np.testing.assert_allclose(
        weights_of(turned, predictions[:, order]), weights_of(fitted, predictions)[:, order], atol=1e-3
    )


def test_the_same_weights_serve_another_number_of_members(table, fitted):
    predictions = table[0]
    twice = fitted.with_descriptors([*DESCRIPTORS, DESCRIPTORS[1]])
    assert [w.shape for w in twice.get_weights()] == [w.shape for w in fitted.get_weights()]
    combined = combine(twice, predictions[:, [0, 1, 2, 1]])
    np.testing.assert_allclose(combined.sum(axis=1), 1, atol=1e-5)
    one = combine(fitted.with_descriptors(DESCRIPTORS[:1]), predictions[:, :1])
    np.testing.assert_array_equal(one.argmax(axis=1), predictions[:, 0].argmax(axis=1))


def test_the_same_seed_gives_the_same_fit(table):
    predictions, y = table[0][:300], table[1][:300]
    first, again, other = (
        fit_combiner(ArchitectureGate(DESCRIPTORS), predictions, y, seed=s).get_weights() for s in (0, 0, 1)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.allclose(first[0], other[0])


@pytest.mark.parametrize("units", [(), (5,), (5, 3)])
def test_the_gradient_of_the_loss_is_right_and_the_loss_that_of_the_layer(units, table, rng):
    predictions, y = table[0][:50], table[1][:50]
    gate = ArchitectureGate(DESCRIPTORS, units=units)
    combine(gate, predictions)
    weights = rng.uniform(0.5, 2, 50)
    loss = gate_fitting._Loss(gate, [list(predictions.swapaxes(0, 1))], y, weights)
    theta = np.append(rng.normal(size=sum(w.size for w in gate.get_weights()) - 1), 0.7)
    assert check_grad(lambda t: loss(t)[0], lambda t: loss(t)[1], theta) < 1e-4
    gate.set_weights(gate_fitting._split(theta, gate.get_weights()))
    expected = np.average(log_losses(y, combine(gate, predictions)), weights=weights)
    assert loss.mean(theta) == pytest.approx(expected, rel=1e-4)
    penalty = gate_fitting._DECAY / 50 / 2 * sum((w**2).sum() for w in gate.get_weights()[:-1] if w.ndim == 2)
    assert loss(theta)[0] == pytest.approx(expected + penalty, rel=1e-4)


def test_one_sigmoid_column_counts_as_two_classes(rng):
    p = rng.random((20, 2, 1)).astype("float32")
    y, two = np.arange(20) % 2, np.concatenate([1 - p, p], axis=2)
    one_column, two_columns = (fit_combiner(ArchitectureGate(DESCRIPTORS[:2]), t, y) for t in (p, two))
    np.testing.assert_allclose(combine(one_column, p), combine(two_columns, two), atol=1e-5)


def test_its_layers_compute_in_float32_under_mixed_precision(table):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        gate = ArchitectureGate(DESCRIPTORS)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in [gate, *gate.hidden, gate.score, gate.sharpness]} == {"float32"}


def test_a_fitted_gate_is_in_the_graph_of_the_ensemble(rng, tmp_path):
    members = [tiny_member(name) for name in "abc"]
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype="uint8")
    predictions = np.stack([member.predict(images, verbose=0) for member in members], axis=1)
    gate = fit_combiner(ArchitectureGate(DESCRIPTORS), predictions, np.arange(60) % 2)
    gate.set_weights([rng.normal(size=w.shape) for w in gate.get_weights()])
    model = build_ensemble(members, gate)
    expected = combine(gate, predictions)
    assert np.abs(expected - combine(GeometricVoting(), predictions)).max() > 0.01
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)


def test_wrong_descriptors_are_refused(table):
    for wrong in ([], [{}], [{"depth": 1}, {"skill": 1}]):
        with pytest.raises(ValueError, match="must be a dict per member, all with the same names"):
            ArchitectureGate(wrong)
    with pytest.raises(ValueError, match="must be a dict per member. Received: .'DenseNet121'."):
        ArchitectureGate(["DenseNet121"])
    with pytest.raises(ValueError, match="must hold finite numbers. Received: depth nan of member 1"):
        ArchitectureGate([{"depth": 1}, {"depth": np.nan}])
    with pytest.raises(ValueError, match="widths of at least 1. Received: .0,."):
        ArchitectureGate(DESCRIPTORS, units=(0,))
    with pytest.raises(ValueError, match="one descriptor per member. Received: 2 descriptors for 3 members"):
        combine(ArchitectureGate(DESCRIPTORS[:2]), table[0])
    with pytest.raises(ValueError, match="Received: 0 descriptors for 3 members"):
        fit_combiner(ArchitectureGate(None), *table)
    with pytest.raises(ValueError, match=r"`descriptors` must have the names \['depth', 'skill'\]"):
        fit_combiner(ArchitectureGate(DESCRIPTORS), *table).with_descriptors([{"depth": 1.0}])
