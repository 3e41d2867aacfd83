"""Fixtures: `ladm prepare` with a tokenizer of bytes, and a tokenizer of words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from support.commands import Command
from support.word_documents import VOCABULARY


@pytest.fixture
def prepare(ladm: Command, tokenizer: str, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: Any, output: str = "rows") -> Result:
        flags = ("--tokenizer", tokenizer, "--length", "40", "--output", tmp_path / output)
        return ladm("prepare", *flags, *arguments)

    return run


@pytest.fixture
def word_tokenizer(tmp_path: Path) -> Path:
    """One token a word, and nothing added in front."""
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "tokenizer"
    special = {"bos_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(str(folder))
    return folder
