"""The recipe of docs/integrations.md: datatrove's minhash drops a near-duplicate and keeps the rest."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "integrations.md"


def words_of(seed: int) -> str:
    """300 words that no other text has; without digits, which minhash takes for equal."""
    source = random.Random(seed)
    return " ".join("".join(source.choices("abcdefghijklmnop", k=5)) for _ in range(300))


def test_the_recipe_of_datatrove_drops_a_near_duplicate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):  # type: ignore[misc]
        """In place of spaCy, which takes seconds to load."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    monkeypatch.setattr(minhash, "load_word_tokenizer", lambda _language: Words())
    monkeypatch.chdir(tmp_path)
    texts = [words_of(0), words_of(1), words_of(2), f"the header of another edition {words_of(1)}"]
    Path("documents").mkdir()
    lines = [json.dumps({"text": text, "id": str(k)}) + "\n" for k, text in enumerate(texts)]
    Path("documents/books.jsonl").write_text("".join(lines))
    (recipe,) = (
        each
        for each in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
        if "datatrove.pipeline.dedup" in each
    )
    exec(compile(recipe, "recipe", "exec"), {"__name__": "recipe"})
    (written,) = Path("unique").iterdir()
    kept = [json.loads(line)["id"] for line in gzip.decompress(written.read_bytes()).splitlines()]
    assert kept == ["0", "1", "2"]
