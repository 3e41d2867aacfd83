"""The most and the least coherent documents of a few text files, scored in memory.

    python examples/score_in_python.py MODEL FILE...

MODEL is a folder or Hub id of a causal language model with a tokenizer; each FILE is one document.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import ladm
from ladm.corpus.preparation.tokenization import plain_tokenizer


def main(model: str, files: list[str]) -> None:
    tokenizer = plain_tokenizer(model)
    texts = [Path(file).read_text(encoding="utf-8", errors="replace") for file in files]
    # Scores of different lengths are hard to compare: cut all documents to one, here that of the shortest with text.
    ids = [tokenizer(text)["input_ids"] for text in texts]
    length = min((len(row) for row in ids if row), default=0)
    # A 256th of a document for each span, as in the paper: 128 tokens of 32,768.
    scorer = ladm.Scorer(model, span_tokens=max(1, length // 256))
    scores = scorer.score([row[:length] for row in ids])
    for row, file in sorted(zip(scores, files, strict=True), key=lambda pair: -(pair[0].score or 0.0)):
        print(f"{file}\t{row.error if row.score is None else format(row.score, '.6g')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("files", nargs="+", metavar="FILE")
    given = parser.parse_args()
    try:
        main(given.model, given.files)
        # Here, so that a closed pipe is found before Python ends.
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Python flushes once more when it ends, which leads nowhere now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ladm.LadmError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
