"""A document -> its layers' queries, keys and values, once for every pass over them.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from torch import Tensor

from ladm.modeling.attention_function import LayerView, Visit
from ladm.modeling.observer import Observer

MOST_KEPT = 2**30
"""Bytes of a document's queries, keys and values up to which they are kept."""


class DocumentViews:
    """The observed layers of one document, in their order, as often as they are wanted.

    They are kept from the first pass of the model as long as they take at most `most_bytes`. Otherwise every pass runs
    the model again.
    """

    def __init__(self, observer: Observer, ids_BT: Tensor, *, most_bytes: int = MOST_KEPT) -> None:
        self._observer = observer
        self._ids_BT = ids_BT
        self._most_bytes = most_bytes
        self._kept: list[LayerView] = []

    def visit_all(self, visit: Visit) -> None:
        """Call `visit` with every observed layer."""
        if self._kept:
            for view in self._kept:
                visit(view)
            return
        kept: list[LayerView] = []
        total = 0

        def keep(view: LayerView) -> None:
            nonlocal total
            visit(view)
            # A tensor may be a part of a larger block of memory, which stays in use as a whole.
            total += sum(x.untyped_storage().nbytes() for x in (view.q_BHTD, view.k_BGTD, view.v_BGTD))
            if total > self._most_bytes:
                kept.clear()
            else:
                kept.append(view)

        self._observer.observe(self._ids_BT, keep)
        self._kept = kept
