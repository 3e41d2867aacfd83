"""A stage of NeMo Curator that adds LADM scores to its batches of documents.

    from curator_stage import LadmScoreStage
    pipeline.add_stage(LadmScoreStage(model="org/model", length=32768))

Needs NeMo Curator 1.0 or newer. Curator gives every worker a copy of the stage, and `setup` is called on it once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import DocumentBatch

from ladm.integrations.scoring import LazyScorer


@dataclass
class LadmScoreStage(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Scores the first `length` tokens of each text; `settings` are those of `ladm.Scorer`."""

    model: str
    length: int
    text_field: str = "text"
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "LadmScore"
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0, gpus=1.0))

    def inputs(self) -> tuple[list[str], list[str]]:
        return ["data"], [self.text_field]

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], [self.text_field, *self._new_scorer().columns]

    def setup(self, _worker_metadata: object = None) -> None:
        self._scorer = self._new_scorer()

    def process(self, batch: DocumentBatch) -> DocumentBatch:
        frame = batch.to_pandas()
        found = [row.columns() for row in self._scorer.score(frame[self.text_field].tolist())]
        frame = frame.assign(**{name: [row[name] for row in found] for name in self._scorer.columns})
        return DocumentBatch(
            task_id=batch.task_id,
            dataset_name=batch.dataset_name,
            data=frame,
            _metadata=batch._metadata,
            _stage_perf=batch._stage_perf,
        )

    def _new_scorer(self) -> LazyScorer:
        # It loads no model before the first batch.
        return LazyScorer(self.model, length=self.length, settings=self.settings)
