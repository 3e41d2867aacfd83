"""datatrove's documents -> the same documents with their LADM score in `metadata`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from ladm.api.keywords import AnyPath
from ladm.errors import require_whole_number
from ladm.integrations.scoring import LazyScorer, in_groups

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.flags import ScorerFlags

BATCH_DOCUMENTS = 64


class LadmScore(PipelineStep):  # type: ignore[misc]
    """Writes `ladm_score`, `ladm_tokens`, `ladm_error` and the columns of `signals` into each document's metadata.

        pipeline = [JsonlReader("documents"), LadmScore("org/model", length=32768), JsonlWriter("scored")]

    No document is dropped. The first `length` tokens of a text are scored; a shorter one gets the score None and the
    reason `too_short`. With `signals=["cds", "text"]` there are fields such as `ladm_gzip_ratio` too. The model loads
    at the first document, once in each process. `batch_documents` are read at a time; how many rows the device gets at
    once is the setting `batch_size`. `settings`: those of `ladm.Scorer`, such as `device`.
    Raises LadmError for settings that cannot be used, before the pipeline starts.
    """

    name = "LADM"
    type = "SCORE"

    def __init__(
        self, model: AnyPath, *, length: int, batch_documents: int = BATCH_DOCUMENTS, **settings: Unpack[ScorerFlags]
    ) -> None:
        super().__init__()
        require_whole_number("batch_documents", batch_documents, least=1)
        self.batch_documents = batch_documents
        self.scorer = LazyScorer(model, length=length, settings=settings, own=("batch_documents",))

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:  # noqa: ARG002
        """The documents, in their order."""
        for documents in in_groups(data, self.batch_documents):
            with self.track_time("batch"):
                scored = self.scorer.score([document.text for document in documents])
            # Their order is that of the reader, which datatrove's writers and statistics rely on.
            for document, found in zip(documents, scored, strict=True):
                document.metadata |= found.columns()
                self.stat_update("scored" if found.score is not None else "without score")
                if found.score is not None:
                    self.stat_update("score", value=found.score)
                yield document
