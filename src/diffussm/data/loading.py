"""Reading ahead: processes that prepare the next batches while training computes this one.

Batch k is a pure function of (seed, which images it has), so it does not matter who reads it: each
worker takes every n-th batch and has at most one ready, and one that dies is replaced and its batch
read again. Workers are forked from a small server process, which knows neither training's threads
nor its GPU.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import ExitStack, suppress
from itertools import islice
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from diffussm.data.dataset import Batch, Dataset
from diffussm.data.order import image_order, image_seeds

MAX_DEATHS = 3
"""How many workers one batch may cost."""


def read_ahead(
    data: Dataset, seed: int, ranges: Iterable[range], workers: int
) -> Generator[Batch, None, None]:
    """For each range, the images seen as these numbers, in order; `ranges` may be endless.

    The same bytes for any number of `workers` and any cutting into ranges. With 0 workers a batch
    is read in place when it is asked for, else each worker has one ready. Closing the iterator ends
    the workers. Raises what `data` raises, and ChildProcessError where workers keep dying.
    """
    waiting = iter(ranges)
    with ExitStack() as stack:
        busy: deque[_Worker] = deque()
        for wanted in islice(waiting, workers):
            busy.append(_Worker(data, seed))
            stack.callback(busy[-1].end)
            busy[-1].ask(wanted)
        while busy:
            worker = busy.popleft()
            batch = worker.result()
            for wanted in islice(waiting, 1):
                worker.ask(wanted)
                busy.append(worker)
            yield batch
    for wanted in waiting:
        yield read(data, seed, wanted)


def read(data: Dataset, seed: int, wanted: range) -> Batch:
    """The images seen as the numbers `wanted`, read here and now."""
    index = image_order(len(data), seed, wanted.start, len(wanted))
    return data.batch(index, image_seeds(seed, wanted.start, len(wanted)))


class _Worker:
    """A process that reads one range at a time."""

    def __init__(self, data: Dataset, seed: int):
        self._reads = data, seed
        self._start()

    def ask(self, wanted: range) -> None:
        self._wanted = wanted
        with suppress(ConnectionError):  # dead: `result` will notice, too
            self._connection.send(wanted)

    def result(self) -> Batch:
        """What was asked for; who dies over it is replaced."""
        for _ in range(MAX_DEATHS):
            try:
                return self._receive()
            except (EOFError, ConnectionError):
                self.end()
                self._start()
                self.ask(self._wanted)
        raise ChildProcessError(
            f"{MAX_DEATHS} processes that read ahead died over the images seen as numbers "
            f"{self._wanted.start} to {self._wanted.stop - 1}; if memory is short, lower "
            "data.workers, which may also be 0 (and a script that starts workers has to do so "
            'below if __name__ == "__main__")'
        )

    def end(self) -> None:
        self._process.kill()  # it only reads: nothing is lost
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        arguments = (*self._reads, theirs)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that its death closes the last one

    def _receive(self) -> Batch:
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        shape, kind, labels, corrupt = answer
        images = torch.empty(shape, dtype=getattr(torch, kind))
        left = _memory(images)
        while left:
            count = os.readv(self._connection.fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
        return Batch(images, torch.from_numpy(labels), corrupt)


def _memory(images: Tensor) -> memoryview:
    """The bytes of a tensor; pickling would copy them several times."""
    return images.view(-1).view(torch.uint8).numpy().data


def _work(data: Dataset, seed: int, connection: Connection) -> None:
    """Answer ranges with batches until training ends, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for training, which may still save
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        while True:
            wanted = connection.recv()
            try:
                batch = read(data, seed, wanted)
            except Exception as error:
                error.add_note(traceback.format_exc())
                connection.send(error)
                continue
            images = batch.images.contiguous()
            kind = str(images.dtype).removeprefix("torch.")
            connection.send((tuple(images.shape), kind, batch.labels.numpy(), batch.corrupt))
            left = _memory(images)
            while left:
                left = left[os.write(connection.fileno(), left) :]
