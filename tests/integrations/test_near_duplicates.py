"""The recipe of docs/integrations.md: datatrove's minhash drops a near-duplicate and keeps the rest."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ladm.corpus.ids.files import hashes_of, read_id_file
from support.paths import ROOT

PAGE = ROOT / "docs" / "integrations.md"


def words_of(seed: int) -> str:
    """300 words that no other text has; without digits, which minhash takes for equal."""
    source = random.Random(seed)
    return " ".join("".join(source.choices("abcdefghijklmnop", k=5)) for _ in range(300))


WITHOUT_SPACY = """
from datatrove.pipeline.dedup import minhash
from datatrove.utils.word_tokenizers import WordTokenizer

class Words(WordTokenizer):
    # In place of spaCy, which takes seconds to load.
    def word_tokenize(self, text):
        return text.split()
    def sent_tokenize(self, text):
        raise NotImplementedError
    def span_tokenize(self, text):
        raise NotImplementedError

minhash.load_word_tokenizer = lambda language: Words()
"""


def test_the_recipe_of_datatrove_drops_a_near_duplicate(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    texts = [words_of(0), words_of(1), words_of(2), f"the header of another edition {words_of(1)}"]
    (tmp_path / "documents").mkdir()
    lines = [json.dumps({"text": text, "id": str(k)}) + "\n" for k, text in enumerate(texts)]
    (tmp_path / "documents" / "books.jsonl").write_text("".join(lines))
    (recipe,) = (
        each
        for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
        if "datatrove.pipeline.dedup" in each
    )
    # In a process of its own: datatrove forks, and a child of this one could die of threads that other tests started.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SPACY + recipe], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "unique").iterdir()
    kept = [json.loads(line)["id"] for line in gzip.decompress(written.read_bytes()).splitlines()]
    assert kept == ["0", "1", "2"]
    # What it removed is a list for --exclude-ids.
    removed = read_id_file(str(tmp_path / "removed" / "00000.jsonl.gz"), flag="--exclude-ids")
    assert removed.hashes_M.tolist() == hashes_of(["3"]).tolist()
