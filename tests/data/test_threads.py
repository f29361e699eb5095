import multiprocessing
import threading

import pytest

from ensemble_keras.data.decoding import BadImageError, BadImagesError
from ensemble_keras.data.threads import for_each_in_threads, map_in_threads


def test_results_come_in_order_from_other_threads():
    threads = set()

    def square(i):
        threads.add(threading.current_thread().name)
        return i * i

    assert list(map_in_threads(square, range(200))) == [i * i for i in range(200)]
    assert threading.current_thread().name not in threads


def test_only_a_few_items_are_taken_ahead():
    taken = []

    def items():
        for i in range(10_000):
            taken.append(i)
            yield i

    results = map_in_threads(str, items())
    assert next(results) == "0"
    assert len(taken) < 1000
    results.close()


def test_an_error_is_raised_when_its_turn_comes():
    results = map_in_threads(lambda i: 1 // (i - 2), range(5))
    assert next(results) == -1
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_bad_images_are_collected_and_the_others_done():
    done = []

    def work(i):
        if i % 3 == 0:
            raise BadImageError(f"{i}.png", "the file is empty")
        done.append(i)

    with pytest.raises(BadImagesError, match="4 files") as error:
        for_each_in_threads(work, range(10))
    assert list(error.value.failures) == ["0.png", "3.png", "6.png", "9.png"]
    assert sorted(done) == [1, 2, 4, 5, 7, 8]


def _squares():
    assert list(map_in_threads(abs, [-1, -2])) == [1, 2]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:")
def test_threads_work_in_a_forked_process():
    _squares()
    process = multiprocessing.get_context("fork").Process(target=_squares)
    process.start()
    process.join(30)
    assert process.exitcode == 0
