"""`in_threads`: read items in several threads, and get them in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Read = TypeVar("Read")


def in_threads(read: Callable[[int], Read], count: int, threads: int | None = None) -> Iterator[Read]:
    """The results of `read(0)`, `read(1)`, ... in this order, read ahead by a few in threads.

    Decoders of photos let other threads run, so this is about as fast as the processor's cores and the disk allow.

    Args:
        read: a function of the number of an item that several threads may call at once.
        count: number of items.
        threads: 1 = no threads; None: a few more than there are cores, for disks are waited for.

    Raises:
        Exception: what the first item that fails raises, in the order of the items.

    Example:
        >>> list(in_threads(lambda number: number**2, 4))
        [0, 1, 4, 9]
    """
    threads = threads or (os.cpu_count() or 1) + 2
    if threads == 1 or count < 2:
        yield from map(read, range(count))
        return
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(read, number))
                if len(waiting) > 2 * threads:  # no more than these are held in memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
