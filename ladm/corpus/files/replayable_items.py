"""Items that can be read once, such as the lines of a pipe -> the first of them as often as needed. No torch.

The first documents are read to find out which fields they have, and then once more to be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from ladm.errors import StorageError

REPLAYED_ITEMS = 1000
T = TypeVar("T")


class ReplayableItems(Generic[T]):
    """Items of an iterator; the first 1,000 are stored and can be read again.

    `problem`: the message of the error where later items are requested again.
    """

    def __init__(self, items: Iterator[T], *, problem: str) -> None:
        self._items = items
        self._problem = problem
        self._first: list[T] = []
        self._is_beyond = False
        """Were items read beyond those that are stored?"""

    def stored(self) -> Iterator[T]:
        """The items that can be read again."""
        for k in range(REPLAYED_ITEMS):
            if k == len(self._first):
                try:
                    self._first.append(next(self._items))
                except StopIteration:
                    return
            yield self._first[k]

    def __iter__(self) -> Iterator[T]:
        """All items, from the first. Raises StorageError where those behind the stored ones are gone."""
        yield from self.stored()
        if self._is_beyond:
            # Such as after damage in a file behind it, when the blocks with documents of both are made again.
            raise StorageError(self._problem)
        for item in self._items:
            self._is_beyond = True
            yield item
