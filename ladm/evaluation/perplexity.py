"""A language model and long rows -> perplexity by context window, and loss by position. Table 2 of the paper."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ladm.corpus.preparation.prepare import PrepareProgress
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.window_documents import documents_of_windows
from ladm.errors import LadmError
from ladm.evaluation.corpora import evaluation_rows, warn_of_disagreement
from ladm.evaluation.ladder import interval_of_mean, ladder_losses, ladder_summary, losses_of_model
from ladm.modeling.causal_lm import CausalLM, load_language, require_positions, token_losses
from ladm.modeling.language_head import FINITE_REMEDY
from ladm.modeling.model_files import model_folder
from ladm.progress import Echo, Progress
from ladm.settings.evaluation import PerplexitySettings
from ladm.storage.files import require_place, write_whole

FIRST_BIN = 128

Floats = npt.NDArray[np.float64]


def perplexity(
    settings: PerplexitySettings, *, echo: Echo, progress: Progress, preparing: PrepareProgress
) -> dict[str, Any]:
    """Measure, and write `settings.output` where one is wanted; returns what is written.

    A window of w tokens is the first w tokens of each row; its perplexity is exp of the mean loss of
    those w - 1 that follow another. Only rows that reach the largest window count, in every window.

    Raises LadmError when no row does, a row cannot be read, or a loss is not finite.
    """
    require_place(settings.output, mark='"windows"')
    with evaluation_rows(
        settings.rows, model=model_folder(settings.model), length=settings.windows[-1], documents=settings.documents,
        echo=echo, preparing=preparing,
    ) as rows:  # fmt: skip
        found = _measured(settings, rows, echo, progress)
    if settings.output is not None:
        write_whole(Path(settings.output), [json.dumps(found, indent=1).encode() + b"\n"])
    return found


def _measured(settings: PerplexitySettings, rows: Rows, echo: Echo, progress: Progress) -> dict[str, Any]:
    windows = settings.windows
    positions = np.flatnonzero(rows.lengths() >= windows[-1])[: settings.documents]
    if not len(positions):
        raise LadmError(f"{rows.name}: no row has {windows[-1]:,} tokens; give smaller --windows")
    language = load_language(settings.model, device=settings.device, dtype=settings.dtype)
    require_positions(language, windows[-1], echo)
    warn_of_disagreement(rows, model_folder(settings.model), echo)
    echo(f"rows      {rows.name}: {len(positions):,} of at least {windows[-1]:,} tokens")
    progress.start(total=len(positions), done=0)
    by_window: list[list[float]] = []
    ladders: list[list[float]] = []
    last_losses = losses_of_model(language)
    by_position = np.zeros(windows[-1] - 1)
    for position in positions:
        ids_T = rows.ids_at(int(position), vocab_size=language.vocab_size)[: windows[-1]]
        losses, means = _one(language, ids_T, windows)
        with np.errstate(over="ignore"):
            # exp of a mean loss above 709 is infinite, and so would the perplexity be.
            are_finite = np.isfinite(losses).all() and np.isfinite(np.exp(means)).all()
        if not are_finite:
            raise LadmError(
                f"row {position} of {rows.name}: the perplexity of {language.name} is not finite; {FINITE_REMEDY}"
            )
        by_position += losses / len(positions)
        by_window.append(means)
        if settings.ladder:
            ladders.append(ladder_losses(last_losses, ids_T, windows))
        progress.advance(rows=1, tokens=len(ids_T))
    progress.close()
    documents_R = _document_numbers(rows, positions)
    documents = 1 + int(documents_R.max())
    by_context = zip(windows, np.array(by_window).T, strict=True)
    return {
        "model": settings.model,
        "rows": settings.rows,
        "documents": documents,
        **({"windows_of_documents": len(positions)} if documents < len(positions) else {}),
        "windows": {str(w): _perplexity(means, documents_R) for w, means in by_context},
        "loss_by_position": _binned(by_position),
        "dtype": str(language.model.dtype).removeprefix("torch."),
    } | ({"ladder": ladder_summary(ladders, windows, documents_R)} if settings.ladder else {})


def _one(language: CausalLM, ids_T: npt.NDArray[np.int64], windows: tuple[int, ...]) -> tuple[Floats, list[float]]:
    """Losses by position of the largest window, and the mean loss of every window."""
    ids = torch.from_numpy(ids_T).unsqueeze(0)
    # A token's loss depends on the tokens before it alone, so one pass over the largest window holds those of every
    # smaller one; not where the positions' encoding depends on the length of the row.
    if language.same_for_prefixes:
        losses = token_losses(language, ids)[0].double().numpy()
        return losses, [float(losses[: w - 1].mean()) for w in windows]
    means = []
    for w in windows:
        losses = token_losses(language, ids[:, :w])[0].double().numpy()
        means.append(float(losses.mean()))
    return losses, means


def _document_numbers(rows: Rows, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of each row's document, from 0 on: that of the row itself unless it is a window: (rows,)."""
    documents = documents_of_windows(rows)
    if documents is None:
        return np.arange(len(positions))
    return np.unique([documents[position] for position in positions], return_inverse=True)[1].astype(np.int64)


def _perplexity(means: Floats, documents_R: npt.NDArray[np.int64]) -> dict[str, float | None]:
    """exp of the mean over rows, with a 95 % interval by bootstrap over documents; a single one has none."""
    # Whole documents are drawn again, not tokens or windows: those of one document are far from independent.
    low, high = interval_of_mean(means, documents_R, of=np.exp)
    return {"perplexity": math.exp(means.mean()), "low": low, "high": high}


def _binned(losses: Floats) -> list[dict[str, float]]:
    """The mean loss between positions 1-127, 128-255, 256-511, .."""
    edges = [1]
    while edges[-1] < len(losses) + 1:
        edges.append(min(max(FIRST_BIN, 2 * edges[-1] if len(edges) > 1 else 0), len(losses) + 1))
    return [
        {"from": start, "to": stop - 1, "loss": float(losses[start - 1 : stop - 1].mean())}
        for start, stop in itertools.pairwise(edges)
    ]
