import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from ensemble_keras import runs


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "result.txt"
    with runs.atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError, match="stop"), runs.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["result.txt"]


def test_the_temporary_file_may_lie_in_a_folder_of_ones_own(tmp_path):
    path, own = tmp_path / "shared" / "result.txt", tmp_path / "own"
    with runs.atomic_path(path, within=own) as temporary:
        temporary.write_text("new")
        assert (os.listdir(own), os.listdir(path.parent)) == ([temporary.name], [])
    assert (os.listdir(own), path.read_text()) == ([], "new")


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.touch()
    with runs.atomic_path(tmp_path / "ours.txt") as temporary:
        temporary.write_text("")
    assert (tmp_path / "ours.txt").stat().st_mode == plain.stat().st_mode


def test_a_fingerprint_depends_on_values_not_on_the_order_of_keys():
    value = {"a": [1, np.int64(2)], "b": {"c": b"\x01"}, "d": pathlib.PurePosixPath("x")}
    assert runs.fingerprint(value) == runs.fingerprint(dict(reversed(value.items())))
    assert runs.fingerprint(value) != runs.fingerprint({**value, "a": [1, 3]})
    with pytest.raises(TypeError, match="object is not a JSON value"):
        runs.fingerprint({"a": object()})


def count_calls():
    calls = []

    def compute():
        calls.append(1)
        return {"values": np.arange(3.0), "note": np.str_("é")}

    return calls, compute


def test_a_finished_unit_is_not_computed_again(tmp_path):
    calls, compute = count_calls()
    for expected in (True, False):
        with runs.Run(tmp_path, {"seed": 0}) as run:
            result, computed = run.unit("member (1)", {"data": "x"}, compute)
            assert computed is expected
            np.testing.assert_array_equal(result["values"], np.arange(3.0))
            assert str(result["note"]) == "é"
    assert len(calls) == 1
    entries = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [entry["unit"] for entry in entries] == ["member (1)"]


def test_a_unit_that_depends_on_something_else_is_computed(tmp_path):
    calls, compute = count_calls()
    with runs.Run(tmp_path, {}) as run:
        run.unit("a", {"data": "x"}, compute)
        run.unit("a", {"data": "y"}, compute)
        run.unit("b", {"data": "x"}, compute)
    assert len(calls) == 3


def test_without_a_directory_nothing_is_kept():
    calls, compute = count_calls()
    with runs.Run(None, {}) as run:
        run.unit("a", {}, compute)
        run.unit("a", {}, compute)
    assert len(calls) == 2


def test_other_arguments_are_named(tmp_path):
    with runs.Run(tmp_path, {"seed": 0, "cv": 5}):
        pass
    with (
        pytest.warns(UserWarning, match=r"other arguments \(cv: 5 then, 3 now\)"),
        runs.Run(tmp_path, {"seed": 0, "cv": 3}),
    ):
        pass
    with runs.Run(tmp_path, {"seed": 0, "cv": 3}):
        pass


def test_of_nested_arguments_those_that_differ_are_named_and_not_too_many(tmp_path):
    many = {f"a{i}": 0 for i in range(9)}
    with runs.Run(tmp_path, {"training": {"epochs": 5, "optimizer": {"name": "sgd"}}, **many}):
        pass
    message = r"arguments \(training.optimizer.name: 'sgd' then, 'adam' now\)"
    with (
        pytest.warns(UserWarning, match=message),
        runs.Run(tmp_path, {"training": {"epochs": 5, "optimizer": {"name": "adam"}}, **many}),
    ):
        pass
    with pytest.warns(UserWarning, match=r"a7: 0 then, None now; …\)"), runs.Run(tmp_path, {}):
        pass


def test_a_directory_in_use_is_refused_and_free_after_a_kill(tmp_path):
    code = (
        "import sys, time; from ensemble_keras.runs import Run\n"
        "with Run(sys.argv[1], {}): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(RuntimeError, match="Another process works in"), runs.Run(tmp_path, {}):
            pass
        other.kill()
        other.wait()
    with runs.Run(tmp_path, {}):
        pass


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path):
    code = (
        "import os, signal, sys; from ensemble_keras.runs import Run, atomic_path\n"
        "with Run(sys.argv[1], {}) as run, atomic_path(run.directory / 'units' / 'a.npz') as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (tmp_path / "units" / ".notes.txt").touch()
    assert len(list((tmp_path / "units").glob(".a-*.partial.npz"))) == 1
    with runs.Run(tmp_path, {}):
        assert os.listdir(tmp_path / "units") == [".notes.txt"]


def test_what_a_killed_writer_left_an_hour_ago_is_removed_by_the_next_one(tmp_path):
    names = [".model-1.partial.keras", ".model-2.partial.keras", ".other-3.partial.keras"]
    for name, age in zip(names, [3601, 3500, 4000], strict=True):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() - age))
    with runs.atomic_path(tmp_path / "model.keras") as temporary:
        temporary.write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [*names[1:], "model.keras"]


def test_a_full_disk_is_said_with_the_way_on(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with runs.Run(tmp_path, {}) as run:
        monkeypatch.setattr(np, "savez", full)
        with pytest.raises(
            OSError, match="'a head'.*No space left.*the same command goes on from the last finished step"
        ):
            run.unit("a head", {}, lambda: {"x": np.zeros(3)})
    assert not list(tmp_path.glob("units/*"))
