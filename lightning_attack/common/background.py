"""`Behind`: work that is done behind the attack of the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WAITING = 8
"""Pieces that may wait; they hold the images and label maps of two or three batches."""


class Behind:
    """One thread that does pieces of work in the order in which they were given, while the caller goes on.

    After a piece that fails the others are dropped (an image whose file could not be written must have no record), and
    the next call raises what it has raised.

    Example:
        >>> behind, done = Behind(), []
        >>> behind.do(done.append, 1); behind.do(done.append, 2)
        >>> behind.finish()
        >>> done
        [1, 2]
        >>> behind.do(int, "one")
        >>> try:
        ...     behind.do(done.append, 3); behind.finish()
        ... except ValueError as error:
        ...     print(error, done)
        invalid literal for int() with base 10: 'one' [1, 2]
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pieces: deque[Future[None]] = deque()
        self._failed = False

    def do(self, work: Callable[..., object], *args: Any) -> None:
        """Have it done; waits while too much is waiting."""
        while self._pieces and (self._pieces[0].done() or len(self._pieces) >= WAITING):
            self._next()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._pieces.append(self._pool.submit(self._run, work, args))

    def finish(self) -> None:
        """Wait until all is done. Afterwards there is no thread, as before the first piece."""
        while self._pieces:
            self._next()
        self._end()

    def _run(self, work: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*args)
        except BaseException:
            self._failed = True
            raise

    def _next(self) -> None:
        try:
            self._pieces.popleft().result()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._failed = None, False
        self._pieces.clear()
