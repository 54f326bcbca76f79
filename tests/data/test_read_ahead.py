"""Reading ahead changes nothing but the time it takes, whatever happens to the workers."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from counted import Deadly, Numbers, Wrong
from pictures import in_folder, stored, tree

from diffussm.data import ImageDataset, image_order, image_seeds, read_ahead
from diffussm.data.loading import MAX_DEATHS

SEED = 5


def cut(sizes, until):
    """Ranges of these sizes in turn, from 0 to `until`."""
    start = 0
    for size in islice(sizes, 1000):
        if start >= until:
            return
        yield range(start, min(start + size, until))
        start += size


def joined(batches):
    images, labels, corrupt = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels), [name for names in corrupt for name in names]


def same(first, second):
    return list(first[2]) == list(second[2]) and all(map(torch.equal, first[:2], second[:2]))


def workers():
    return multiprocessing.active_children()


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert workers() == []


@pytest.mark.parametrize("number", [0, 1, 3])
def test_any_number_of_workers_and_any_cut(number):
    order = image_order(7, SEED, 0, 40)
    seeds = image_seeds(SEED, 0, 40)
    wanted = Numbers().batch(order, seeds)
    for sizes in ([40], [1] * 40, [3, 8, 1] * 4):
        found = list(read_ahead(Numbers(), SEED, cut(sizes, 40), number))
        assert [len(batch.labels) for batch in found] == [len(r) for r in cut(sizes, 40)]
        assert same(joined(found), wanted)


def test_a_start_in_the_middle():
    everything = joined(read_ahead(Numbers(), SEED, [range(30)], 0))
    rest = joined(read_ahead(Numbers(), SEED, [range(11, 20), range(20, 30)], 2))
    assert same(rest, [part[11:] for part in everything])


def test_no_ranges_and_fewer_than_workers():
    assert list(read_ahead(Numbers(), SEED, [], 2)) == []
    assert len(list(read_ahead(Numbers(), SEED, [range(2)], 3))) == 1


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
def test_large_batches_of_any_precision(kind):
    images = torch.arange(4 * 3 * 200 * 200).reshape(4, 3, 200, 200).to(kind)
    data = ImageDataset(images=images, labels=torch.arange(4), class_names=tuple("abcd"))
    for batch in read_ahead(data, SEED, [range(4), range(4, 8)], 2):
        assert batch.images.dtype == kind
        assert torch.equal(batch.images, images[batch.labels])


def test_stored_images_are_read_by_workers(tmp_path):
    data = stored(in_folder(tree(), tmp_path / "it"))
    here, there = (joined(read_ahead(data, SEED, cut([3, 5] * 9, 20), n)) for n in (0, 2))
    assert same(here, there)


def test_endless_ranges_and_the_end_of_all_workers():
    batches = read_ahead(Numbers(), SEED, (range(k, k + 2) for k in count(0, 2)), 2)
    found = joined(islice(batches, 30))
    processes = workers()
    assert len(processes) == 2
    batches.close()
    assert same(found, joined(read_ahead(Numbers(), SEED, [range(60)], 0)))
    for process in processes:
        assert not process.is_alive()


def test_ranges_are_asked_for_only_as_far_as_workers_read():
    asked = []

    def ranges():
        for start in count():
            asked.append(start)
            yield range(start, start + 1)

    for number, ahead in ((0, 1), (3, 4)):
        asked.clear()
        batches = read_ahead(Numbers(), SEED, ranges(), number)
        next(batches)
        assert len(asked) == ahead
        batches.close()


def test_killed_workers_are_replaced():
    batches = read_ahead(Numbers(), SEED, (range(k, k + 2) for k in count(0, 2)), 2)
    found = [next(batches)]
    for number in range(6):
        for process in workers()[: 1 + number % 2]:
            os.kill(process.pid, signal.SIGKILL)
            if number % 3:
                process.join()
        found.append(next(batches))
    found.extend(islice(batches, 3))
    assert len(workers()) == 2
    batches.close()
    assert same(joined(found), joined(read_ahead(Numbers(), SEED, [range(20)], 0)))


def test_workers_that_keep_dying_are_an_error():
    with pytest.raises(
        ChildProcessError, match=rf"^{MAX_DEATHS} processes .* numbers 4 to 5; if mem"
    ):
        list(read_ahead(Deadly(), SEED, [range(4, 6)], 2))


@pytest.mark.parametrize("number", [0, 2])
def test_errors_of_the_data_arrive_as_they_are(number):
    with pytest.raises(ValueError, match="no such images") as caught:
        list(read_ahead(Wrong(), SEED, [range(3)], number))
    assert str(caught.value) == "no such images: mend them"
    if number:
        assert "in batch\n" in caught.value.__notes__[0]  # where it happened


def test_ctrl_c_is_not_for_workers():
    batches = read_ahead(Numbers(), SEED, (range(k, k + 2) for k in count(0, 2)), 1)
    next(batches)
    (process,) = workers()
    os.kill(process.pid, signal.SIGINT)
    for _ in range(3):
        next(batches)
    assert [found.pid for found in workers()] == [process.pid]
    batches.close()


KILLED = """
import multiprocessing, os, signal, sys
from itertools import count
import torch
from diffussm.data import ImageDataset, read_ahead
if __name__ == "__main__":
    labels = torch.zeros(9, dtype=torch.long)
    data = ImageDataset(images=torch.zeros(9, 3, 99, 99), labels=labels, class_names=("zero",))
    batches = read_ahead(data, 0, (range(k, k + 500) for k in count(0, 500)), 2)
    next(batches)
    print(*[process.pid for process in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid):
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux about processes")
def test_workers_end_when_training_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    patience = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not any(map(alive, pids))
