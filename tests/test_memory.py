"""A library that runs out of memory: the message says so, and accuses no file."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from conftest import GOLDEN, SMALL

from ladm.errors import LackOfMemoryError, StorageError, is_out_of_memory

WAYS: list[BaseException] = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory", "config.json"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    pa.ArrowMemoryError("malloc of size 4096 failed"),
]


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_words: Any, **_more: Any) -> Any:
        raise error

    return fail


def wrapping(*_words: Any, **_more: Any) -> Any:
    """As transformers does with what it meets on the way."""
    try:
        raise MemoryError
    except MemoryError as error:
        raise OSError("Can't load the configuration of 'm'") from error


@pytest.mark.parametrize("error", WAYS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "function",
    [
        "transformers.AutoConfig.from_pretrained",
        "ladm.modeling.observer.AutoModel.from_pretrained",
        "transformers.PreTrainedModel.to",
    ],
)
def test_a_model_is_not_accused(
    ladm: Callable[..., Result], short_rows: str, tmp_path: Path, monkeypatch: Any, error: BaseException, function: str
) -> None:
    monkeypatch.setattr(function, failing(error))
    result = ladm("score", short_rows, *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "not enough memory to " in result.stderr
    assert "cannot be used" not in result.stderr
    assert "does not load" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("ladm: not enough memory to ")


def test_what_a_library_wrapped_is_recognised(monkeypatch: Any) -> None:
    from ladm.modeling.facts import model_facts

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", wrapping)
    with pytest.raises(LackOfMemoryError, match="^not enough memory to read the configuration of "):
        model_facts(str(GOLDEN))


def test_a_tokenizer_for_which_memory_lacks_is_not_left_out(talking: Path, monkeypatch: Any) -> None:
    """A model without a tokenizer passes, and so does one whose tokenizer is broken."""
    from ladm.corpus.tokenization import tokenizer_of_model

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", failing(ValueError("broken")))
    assert tokenizer_of_model(str(talking)) is None
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", failing(MemoryError()))
    with pytest.raises(LackOfMemoryError, match="^not enough memory to load the tokenizer of "):
        tokenizer_of_model(str(talking))


def test_a_name_is_no_sign() -> None:
    assert not is_out_of_memory(FileNotFoundError(errno.ENOENT, "No such file", "out of memory.txt"))
    assert not is_out_of_memory(ValueError("expected a number"))


@pytest.mark.parametrize("error", WAYS[:2] + WAYS[-1:], ids=lambda error: type(error).__name__)
def test_documents_are_not_left_out_for_lack_of_memory(monkeypatch: Any, error: BaseException) -> None:
    """The file may be whole: it is named, and both reasons are."""
    from ladm.corpus.documents import DamagedFileError, read_documents
    from ladm.corpus.sources import Source

    monkeypatch.setattr("ladm.corpus.documents._parquet", failing(error))
    with pytest.raises(StorageError, match=r"x\.parquet: not enough memory for it, or it is damaged") as caught:
        list(read_documents(Source("x.parquet", "parquet", ""), text_key="text", skip=0))
    assert not isinstance(caught.value, DamagedFileError)


def test_a_command_that_meets_it_anywhere_says_so(
    ladm: Callable[..., Result], short_rows: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("ladm.scoring.score.choose_signals", failing(MemoryError()))
    result = ladm("score", short_rows, *SMALL, "--output", tmp_path / "run")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, "ladm: not enough memory (MemoryError); free some, or raise a limit"
    )  # fmt: skip
