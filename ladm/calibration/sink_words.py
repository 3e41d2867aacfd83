"""A model and a few documents -> the words that its attention sinks stand on, by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from ladm.corpus.preparation.tokenization import tokenizer_of_model
from ladm.corpus.rows.row import Ids
from ladm.method.grid import Grid
from ladm.method.sinks import far_key_mass, strongest_keys
from ladm.modeling.attention_function import LayerView
from ladm.modeling.observer import Observer

WORDS = 3
MOST_DOCUMENTS = 4
"""Sinks stand on the same few words in all documents, so a handful of documents shows them."""


def sink_words(observer: Observer, documents: list[Ids], grid: Grid) -> dict[int, list[str]]:
    """For each observed layer the tokens with the most distant attention among its strongest keys, most first.

    Each is quoted, so that spaces and line ends are seen. Token ids stand for texts where the model has no tokenizer.
    """
    mass_of: dict[int, Counter[int]] = {layer: Counter() for layer in observer.layers}
    for ids in documents[:MOST_DOCUMENTS]:
        tokens = ids.tolist()

        def visit(view: LayerView, tokens: list[int] = tokens) -> None:
            mass_BHT = far_key_mass(
                view.q_BHTD, view.k_BGTD, scaling=view.scaling, skipped_tokens=grid.start(0) + grid.l
            )
            mass, places = mass_BHT[0].mean(dim=0).topk(strongest_keys(len(tokens)))
            for place, share in zip(places.tolist(), mass.tolist(), strict=True):
                mass_of[view.layer][tokens[place]] += share

        observer.observe(torch.tensor([tokens]), visit)
    spelling = _spelling(observer.facts.folder)
    return {layer: [spelling(token) for token, _ in found.most_common(WORDS)] for layer, found in mass_of.items()}


def _spelling(folder: str) -> Callable[[int], str]:
    """What writes a token id as text."""
    tokenizer = tokenizer_of_model(folder)
    # The words are an illustration; a tokenizer that does not load is no reason to fail the check.
    if tokenizer is None:
        return str
    return lambda token: repr(tokenizer.decode([token], clean_up_tokenization_spaces=False))
