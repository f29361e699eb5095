import types

import numpy as np
from sklearn.metrics import roc_auc_score

from ensemble_keras.evaluation.leaderboard import leaderboard, leaderboard_text, verdict

LABELS = np.arange(40) % 2
SIZES = {"MobileNetV2(alpha=0.35)": 410_208, "CNN": 930, "VGG19": 20_024_384}


def entry(name, right, seconds=1.0, note=""):
    """A member or combiner that is right about the first `right` images, at 0.8."""
    p = np.where(np.arange(40) < right, 0.8, 0.2)
    out_of_fold = np.stack([np.where(k == LABELS, p, 1 - p) for k in range(2)], axis=1)
    return types.SimpleNamespace(name=name, out_of_fold=out_of_fold, seconds=seconds, note=note)


def combination(name, right, used=(0, 1, 2), **options):
    """A combiner of the members `used`."""
    found = entry(name, right, **options)
    found.used = list(used)
    return found


def table():
    members = [entry(name, right) for name, right in zip(SIZES, (30, 20, 32), strict=True)]
    members[1].note = "loss became NaN in epoch 3: weights of epoch 2 kept"
    tried = [combination("soft_voting", 36, seconds=0.01), combination("stacking", 34, seconds=123.4)]
    return leaderboard(members, tried, tried[0], LABELS, skipped={"NASNetLarge": "out of memory"}, parameters=SIZES)


def test_the_text_says_what_the_table_says_in_80_columns():
    lines = leaderboard_text(table()).splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line[:26].strip(): line[26:].split() for line in lines}
    assert rows["MobileNetV2(alpha=0.35)"][:2] == ["0.7500", f"{-(0.75 * np.log(0.8) + 0.25 * np.log(0.2)):.4f}"]
    assert rows["MobileNetV2(alpha=0.35)"][-2:] == ["1.0", "410k"]
    assert rows["VGG19"][3:] == ["best", "member", "1.0", "20.0M"]
    assert rows["soft_voting (chosen)"][0] == "0.9000"
    found = table().set_index("name").loc["soft_voting"]
    assert rows["soft_voting (chosen)"][3:6] == [f"{100 * found.low:+.1f}", "to", f"{100 * found.high:+.1f}"]
    assert rows["stacking"][-2:] == ["123", "20.4M"]


def test_accuracy_on_validation_data_is_a_column_and_a_line():
    validation = {"member": {"MobileNetV2(alpha=0.35)": 0.75, "CNN": 0.5, "VGG19": 0.8125}, "ensemble": {"CNN": 0.9}}
    members = [entry(name, 30) for name in SIZES]
    tried = [combination("CNN", 36), combination("stacking", 34)]
    arguments = {"skipped": {"NASNetLarge": "out of memory"}, "parameters": SIZES}
    board = leaderboard(members, tried, tried[0], LABELS, validation=validation, **arguments)
    np.testing.assert_array_equal(board["validation_accuracy"], [0.75, 0.5, 0.8125, 0.9, np.nan, np.nan])
    assert board.drop(columns="validation_accuracy").equals(
        leaderboard(members, tried, tried[0], LABELS, **arguments)
    )
    lines = leaderboard_text(board).splitlines()
    assert lines[-3:] == [
        "Accuracy on the validation data: MobileNetV2(alpha=0.35) 0.7500, CNN 0.5000,",
        "VGG19 0.8125, CNN 0.9000.",
        "NASNetLarge: out of memory",
    ]


def test_the_text_ends_with_what_the_notes_say():
    assert leaderboard_text(table()).splitlines()[-2:] == [
        "CNN: loss became NaN in epoch 3: weights of epoch 2 kept",
        "NASNetLarge: out of memory",
    ]


MEMBERS = [entry(name, right) for name, right in zip(SIZES, (30, 20, 24), strict=True)]
COSTS = {"MobileNetV2(alpha=0.35)": 100, "CNN": 50, "VGG19": 400}


def said(chosen, *others, members=MEMBERS, **costs):
    return verdict(chosen, [chosen, *others], members, LABELS, parameters=SIZES, **costs)


def test_a_gain_is_told_with_its_interval_and_its_cost():
    chosen = combination("greedy", 40, used=[0, 2])
    assert said(chosen, combination("soft_voting", 30), macs=COSTS) == (
        "Greedy of 2 of 3 members: +25.0 points of out-of-fold accuracy over MobileNetV2(alpha=0.35) alone, "
        "95 % interval +12.5 to +40.0, at 5.0 times its multiply-accumulates."
    )
    whole = said(combination("concatenate", 40))
    assert whole.startswith("Concatenation of 3 members: +25.0 points")
    assert whole.endswith(f"at {sum(SIZES.values()) / 410_208:.1f} times its parameters.")


def test_without_a_gain_beyond_chance_one_model_would_do():
    expected = (
        "One model would do: MobileNetV2(alpha=0.35) alone has an out-of-fold accuracy of 0.7500. Soft voting of 3 "
        "members gives +2.5 points of out-of-fold accuracy over MobileNetV2(alpha=0.35) alone, 95 % interval +0.0 to "
        "+7.5, at 5.5 times its multiply-accumulates."
    )
    voted = combination("soft_voting", 31)
    assert said(voted, macs=COSTS) == expected
    # Where the best member was chosen, the best of what it was compared with.
    best = combination("best_member", 30, used=[0])
    assert said(best, combination("stacking", 25), voted, macs=COSTS) == expected


def test_of_two_classes_a_better_order_of_the_images_is_a_gain_too():
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 10 // 9
    # Both say the common class of all images; the ensemble knows better in what order.
    alone, together = (rng.uniform(0, 0.3, 1000) + gain * y for gain in (0.05, 0.15))
    members = [types.SimpleNamespace(name=name, out_of_fold=np.stack([1 - alone, alone], axis=1)) for name in COSTS]
    chosen = types.SimpleNamespace(name="soft_voting", out_of_fold=np.stack([1 - together, together], axis=1))
    chosen.used = [0, 1, 2]
    found = verdict(chosen, [chosen], members, y, parameters=COSTS)
    area = roc_auc_score(y, together) - roc_auc_score(y, alone)
    assert found.startswith(f"Soft voting of 3 members: {area:+.4f} of ROC AUC, 95 % interval +0.")
    assert found.endswith(
        "; +0.0 points of out-of-fold accuracy over MobileNetV2(alpha=0.35) alone, 95 % interval +0.0 to +0.0, at "
        "5.5 times its parameters."
    )
    # The other way round it is none.
    chosen.out_of_fold, members[0].out_of_fold = members[0].out_of_fold, chosen.out_of_fold
    assert verdict(chosen, [chosen], members, y, parameters=COSTS).startswith("One model would do: MobileNetV2")


def test_without_anything_to_compare_with_that_is_said():
    best = combination("best_member", 30, used=[0])
    assert said(best) == (
        "One of 3 models is used: MobileNetV2(alpha=0.35) alone has an out-of-fold accuracy of 0.7500."
    )
    assert said(best, members=MEMBERS[:1]).startswith(
        "One member: MobileNetV2(alpha=0.35), out-of-fold accuracy 0.75"
    )


def test_a_combiner_costs_what_its_members_cost():
    tried = [combination("soft_voting", 36), combination("greedy", 36, used=[1, 2])]
    board = leaderboard(MEMBERS, tried, tried[0], LABELS, skipped={}, parameters=SIZES, macs=COSTS).set_index("name")
    assert board.loc[["CNN", "soft_voting", "greedy"], "macs"].tolist() == [50, 550, 450]
    assert board.loc["greedy", "parameters"] == SIZES["CNN"] + SIZES["VGG19"]
    assert leaderboard(MEMBERS, tried, tried[0], LABELS, skipped={}, parameters=SIZES)["macs"].isna().all()
