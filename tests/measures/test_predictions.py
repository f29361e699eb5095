import numpy as np
import pytest
from synthetic import member_predictions

from ensemble_keras.measures import predictions as checks
from ensemble_keras.measures.metrics import check_probabilities


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(checks, "_BLOCK", 100)


def test_a_right_table_comes_back_as_it_is(rng):
    table, _ = member_predictions([1.0, 0.0])
    assert checks.check_predictions(table) is table
    # A view of other strides: a stack along another axis, turned.
    turned = np.ascontiguousarray(table.swapaxes(0, 1)).swapaxes(0, 1)
    assert checks.check_predictions(turned) is turned
    half = table.astype("float16")
    np.testing.assert_array_equal(checks.check_predictions(half), half.astype("float32"))
    np.testing.assert_allclose(checks.check_predictions(table[:, :, :1]).sum(axis=2), 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN from member 1 in 2 rows: 7, 290; 1 more members have such rows"),
        (-0.5, r"values outside \[0, 1\] from member 1 in 2 rows: 7, 290"),
        (1.5, r"values outside \[0, 1\] from member 1 in 2 rows: 7, 290"),
        (np.inf, r"values outside \[0, 1\] from member 1 in 2 rows: 7, 290"),
        (0.9999, r"rows that do not sum to 1 from member 1 in 2 rows: 7, 290 \(the first sums to 1\."),
    ],
)
def test_faults_are_told_by_member_and_row_whatever_block_they_are_in(rng, value, message):
    table, _ = member_predictions([-3.0, -3.0, 3.0])
    table[[7, 290], 1, 0] = value
    table[100, 2, 1] = value
    table[100, 2, 0] = 0.9
    with pytest.raises(ValueError, match=message):
        checks.check_predictions(table)


def test_a_table_that_passes_passes_as_one_of_its_members_too(rng):
    """What takes all members and what takes one table refuse the same sums."""
    table, _ = member_predictions([1.0, 1.0])
    for factor in (1.0019, 0.9981):
        check_probabilities(checks.check_predictions(factor * table)[:, 0])
    for factor in (1.0021, 0.9979):
        with pytest.raises(ValueError, match="a sum other than 1"):
            check_probabilities(factor * table[:, 0])
        with pytest.raises(ValueError, match="do not sum to 1 from member 0"):
            checks.check_predictions(factor * table)


def test_names_in_place_of_class_indices_are_told_as_they_are():
    with pytest.raises(ValueError, match=r"class indices 0 … 1. Received: names such as 'ant'\."):
        checks.check_y(np.array(["ant", "bee"]), 2, 2)


def test_rows_of_half_precision_pass(rng):
    table = rng.dirichlet(np.ones(30), (2000, 1))
    # bfloat16 keeps 8 binary digits.
    digits = 2.0 ** (np.floor(np.log2(table)) - 7)
    for half in (table.astype("float16"), (np.round(table / digits) * digits).astype("float32")):
        check_probabilities(checks.check_predictions(half)[:, 0])


def test_nan_is_told_before_sums(rng):
    table, _ = member_predictions([1.0, 1.0])
    table[2, 0] = 0.9
    table[200, 1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN from member 1 in 1 row: 200"):
        checks.check_predictions(table)


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [1, 2, 0, 3], [3, 2, 1, 0]])
def test_shuffled_columns_are_told_by_member_and_row(rng, order):
    table, y = member_predictions([2.5, 1.0, 2.5], n=800, num_classes=4)
    checks.check_class_order(table, y)
    table[:, 2] = table[:, 2][:, order]
    k = next(k for k in range(4) if order[k] != k)
    said = order.index(k)
    with pytest.raises(
        ValueError, match=f"member 2 .* where `y` is {k}, as in row {k}, it gives class {said} a mean"
    ):
        checks.check_class_order(table, y)


def test_poor_members_are_not_taken_for_shuffled_ones(rng):
    y = np.arange(1000) % 5
    chance = rng.dirichlet(np.ones(5), (1000, 40)).astype("float32")
    checks.check_class_order(chance, y)
    constant = np.tile(np.float32([0, 1, 0, 0, 0]), (1000, 2, 1))
    checks.check_class_order(constant, y)
    # Classes 0 and 1 are both taken for 2, which is sometimes taken for 0: no circle of errors.
    swallowed = np.eye(5, dtype="float32")[np.where(y < 2, 2, np.where((y == 2) & (rng.random(1000) < 0.3), 0, y))]
    checks.check_class_order(swallowed[:, None], y)
    # Worse than chance on few images, as out-of-fold predictions of what cannot be learnt are.
    # Shares of the other 39 rows, as a member that has learnt nothing gives them to the row left out.
    left_out = np.where(np.arange(40)[:, None] % 2 == [0, 1], 19 / 39, 20 / 39).astype("float32")
    checks.check_class_order(left_out[:, None], np.arange(40) % 2)
    few = np.eye(2, dtype="float32")[(np.arange(20) % 2) ^ (rng.random(20) < 0.7)]
    checks.check_class_order(few[:, None], np.arange(20) % 2)


def test_two_exchanged_classes_of_a_hundred_are_found(rng):
    table, y = member_predictions([4.0], n=10000, num_classes=100)
    checks.check_class_order(table, y)
    table[:, 0, [17, 42]] = table[:, 0, [42, 17]]
    with pytest.raises(ValueError, match="where `y` is 17, as in row 17, it gives class 42"):
        checks.check_class_order(table, y)
