"""Tokenizers of numbered words, saved to a folder."""

from __future__ import annotations

from pathlib import Path


def tokenizer_folder(folder: Path) -> Path:
    """A tokenizer of 50 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"w{k}": k for k in range(50)} | {"[UNK]": 50}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", bos_token="w0").save_pretrained(folder)
    return folder


def words_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({f"w{k}": k for k in range(500)} | {"[UNK]": 500}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="w1").save_pretrained(folder)
