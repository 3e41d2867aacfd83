"""The rows of an evaluation: a data set of rows, or a corpus by its name, made into rows of the model's tokenizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ladm.corpus.preparation.prepare import PrepareProgress, prepare
from ladm.corpus.preparation.tokenization import disagreement
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, one_line, raise_if_out_of_memory
from ladm.progress import Echo
from ladm.settings.data import PrepareSettings
from ladm.storage.temporary import temporary_folder

CORPORA = {"proof-pile": ("hoskinson-center/proof-pile", "test/proofpile_test.jsonl.gz")}
"""Data sets of the Hub, and their held-out file: Proof-Pile is that of the paper's Table 2."""


@contextlib.contextmanager
def evaluation_rows(
    name: str, *, model: Path, length: int, documents: int, echo: Echo, preparing: PrepareProgress
) -> Iterator[Rows]:
    """Rows as `open_rows` has them; of a corpus by name the first `documents` of at least `length` tokens, cut to it.

    Raises LadmError where the Hub does not give the corpus, and as `open_rows` and `prepare` do.
    """
    if name not in CORPORA or Path(name).exists():
        yield open_rows(name)
        return
    source = _fetched(name)
    with temporary_folder() as folder:
        rows = str(folder / "rows")
        settings = PrepareSettings(
            sources=(source,), tokenizer=str(model), output=rows, length=length, limit=documents, domain=name
        )
        prepare(settings, echo=echo, progress=preparing)
        yield open_rows(rows)


def _fetched(name: str) -> str:
    import huggingface_hub

    repository, file = CORPORA[name]
    try:
        return str(huggingface_hub.hf_hub_download(repository, file, repo_type="dataset"))
    except Exception as error:
        raise_if_out_of_memory(error, action=f"fetch {repository}")
        # The Hub client raises a dozen exceptions of its own and of its transport, which differ between versions.
        raise LadmError(
            f"--rows {name}: cannot download {repository} from the Hub: {one_line(error)}; give rows of ladm prepare"
        ) from None


def warn_of_disagreement(rows: Rows, folder: Path, echo: Echo) -> None:
    """Print a warning where rows have texts too, and the model's tokenizer makes other ids of them."""
    problem = disagreement(rows, str(folder))
    if problem is not None:
        echo(f"warning   {problem}")
