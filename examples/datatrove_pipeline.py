"""Score JSONL documents in datatrove's local executor, and keep those that ladm could score.

    python examples/datatrove_pipeline.py MODEL FOLDER OUTPUT [LENGTH]

MODEL is a folder or Hub id of a causal language model with a tokenizer; FOLDER holds JSONL files with `text`.
"""

from __future__ import annotations

import argparse
import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

import ladm
from ladm.integrations.datatrove import LadmScore
from ladm.integrations.scoring import require_model


def main(model: str, folder: str, output: str, length: int) -> None:
    pipeline = [
        JsonlReader(folder),
        LadmScore(model, length=length),
        LambdaFilter(has_score),
        JsonlWriter(f"{output}/scored", compression=None),
    ]
    # One task for each GPU or machine; datatrove gives each its files, and skips those that are finished.
    LocalPipelineExecutor(pipeline, tasks=1, logging_dir=f"{output}/logs").run()


def has_score(document: object) -> bool:
    return document.metadata["ladm_score"] is not None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "folder", "output"):
        parser.add_argument(name)
    parser.add_argument("length", type=int, nargs="?", default=32_768)
    given = parser.parse_args()
    try:
        # A wrong name would otherwise end in datatrove's traceback, when the first document is read.
        require_model(given.model, length=given.length)
    except ladm.LadmError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    main(**vars(given))
