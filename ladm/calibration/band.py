"""The run of a contrast set -> quantiles of the intact documents for every recorded column: the band of a profile.

Repeated blocks, shuffled spans and lists score above almost every document, so a selection that ranks inside the band
of documents leaves them out. Imports no torch.
"""

from __future__ import annotations

import numpy as np

from ladm.calibration.candidates import Candidate
from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import JUDGED_ON, ContrastScores
from ladm.corpus.preparation.tokenization import tokenizer_of_model
from ladm.corpus.rows.row import Ids
from ladm.method.reduction import Floats
from ladm.runs.columns.by_name import column_names, read_columns
from ladm.runs.folder import Run
from ladm.settings.profiles import Quantiles
from ladm.settings.signals import OF_CDS
from ladm.signals.text_statistics import UnigramTable, text_statistics

QUANTILES = (0.05, 0.5, 0.95)
NO_GUARDS = ("score", "length", "random", "far_rare")
"""Columns that do not describe a document; the score of the contrast set's own run, which is not the profile's; and one
whose table of unigrams is that of the rows it was scored with, so that its values in two runs do not compare."""
OF_THE_TEXT = ("gzip_ratio", "characters_per_token", "digits")
"""Statistics of a text. The rows of a contrast set have none, so they are taken from the documents decoded."""


def intact_band(run: Run, scores: ContrastScores, recommended: Candidate) -> dict[str, Quantiles]:
    """By column, 0.05, 0.5 and 0.95 quantile of the intact documents: of `score` and of all that `select` can read.

    `score` is the profile's own, of the half that it was not chosen on: on the other half it is higher than it will be
    on new documents. Statistics of the text are left out, see `text_band`.
    """
    names = [name for name in column_names(run) if name not in (*NO_GUARDS, *OF_THE_TEXT)]
    # Both tables are in the order of scores.parquet.
    table = read_columns(run, names)
    intact = scores.mask(INTACT, None)
    band = {"score": _quantiles(recommended.values(scores)[scores.mask(INTACT, JUDGED_ON)])}
    return band | {name: _quantiles(table[name].to_numpy()[intact]) for name in names}


def band_of_layers(run: Run, scores: ContrastScores, layers: tuple[int, ...]) -> dict[str, Quantiles]:
    """The same of the columns over layers, in a run of these layers alone, as `ladm score --profile` makes one.

    Empty where these are all layers of `run`.
    """
    if layers == run.identity.layers:
        return {}
    names = [name for name in column_names(run) if name in OF_CDS]
    table = read_columns(run, names, layers=layers)
    intact = scores.mask(INTACT, None)
    return {name: _quantiles(table[name].to_numpy()[intact]) for name in names}


def text_band(documents: list[Ids], model_folder: str) -> dict[str, Quantiles]:
    """The same of the statistics of the documents' texts; empty where the model has no tokenizer that loads."""
    tokenizer = tokenizer_of_model(model_folder)
    if tokenizer is None:
        return {}
    no_table = UnigramTable(np.zeros(1 + max(int(ids.max()) for ids in documents), dtype=np.int64))
    texts = [tokenizer.decode(ids.tolist(), skip_special_tokens=True) for ids in documents]
    found = [text_statistics(ids, text, unigrams=no_table) for ids, text in zip(documents, texts, strict=True)]
    return {name: _quantiles(np.array([getattr(each, name) for each in found])) for name in OF_THE_TEXT}


def _quantiles(values_B: Floats) -> Quantiles:
    # Six significant digits exceed the precision of any sample.
    low, middle, high = (float(f"{value:.6g}") for value in np.quantile(values_B, QUANTILES))
    return low, middle, high
