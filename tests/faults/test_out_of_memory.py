"""A library that runs out of memory: the message says so, and accuses no file."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result

from ladm.errors import LackOfMemoryError, StorageError, is_out_of_memory, lack_of_memory, raise_if_out_of_memory
from support.models import SMALL
from support.paths import GOLDEN

WAYS: list[BaseException] = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory", "config.json"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    pa.ArrowMemoryError("malloc of size 4096 failed"),
]
DUCKDB = [
    duckdb.OutOfMemoryException(
        "Out of Memory Error: could not allocate block of size 256.0 KiB (9.5 MiB/9.5 MiB used)"
    ),
    duckdb.OutOfMemoryException("Out of Memory Error: failed to pin block of size 256.0 KiB (9.5 MiB/9.5 MiB used)"),
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


def test_a_tokenizer_that_does_not_fit_in_memory_is_an_error(talking: Path, monkeypatch: Any) -> None:
    """A model without a tokenizer passes, and so does one whose tokenizer is broken."""
    from ladm.corpus.preparation.tokenization import tokenizer_of_model

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", failing(ValueError("broken")))
    assert tokenizer_of_model(str(talking)) is None
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", failing(MemoryError()))
    with pytest.raises(LackOfMemoryError, match="^not enough memory to load the tokenizer of "):
        tokenizer_of_model(str(talking))


def test_a_name_is_no_sign() -> None:
    assert not is_out_of_memory(FileNotFoundError(errno.ENOENT, "No such file", "out of memory.txt"))
    assert not is_out_of_memory(ValueError("expected a number"))
    assert not is_out_of_memory(ImportError("libgomp.so.1: cannot allocate memory in static TLS block"))


@pytest.mark.parametrize("error", DUCKDB, ids=["allocate", "pin"])
def test_the_words_of_duckdb_are_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_duckdb_itself_is_recognised() -> None:
    settings: dict[str, Any] = {"memory_limit": "2MB", "threads": 1, "temp_directory": ""}
    with duckdb.connect(config=settings) as database, pytest.raises(duckdb.Error) as caught:
        database.execute("SELECT count(*) FROM (SELECT DISTINCT range FROM range(1000000))")
    assert is_out_of_memory(caught.value)


def test_a_library_on_a_noexec_mount_is_not_only_blamed_on_memory() -> None:
    error = ImportError("/cache/x.so: failed to map segment from shared object")
    with pytest.raises(LackOfMemoryError) as caught:
        raise_if_out_of_memory(error, action="load the model m")
    assert str(caught.value) == (
        "not enough memory to load the model m, or the folder of a library is mounted noexec (/cache/x.so: failed to "
        "map segment from shared object); free some, or raise a limit such as ulimit -v, or use a folder whose files "
        "may be executed"
    )
    assert not is_out_of_memory(ImportError(f"{error}: Operation not permitted"))
    full = lack_of_memory(ImportError(f"{error}: Cannot allocate memory"), action="load the model m")
    assert "noexec" not in str(full)


@pytest.mark.parametrize(
    "text",
    ["CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "HIP out of memory."],
)
def test_a_device_has_a_remedy_of_its_own(text: str) -> None:
    with pytest.raises(LackOfMemoryError) as caught:
        raise_if_out_of_memory(RuntimeError(text), action="load the model m")
    assert str(caught.value) == (
        f"not enough memory to load the model m ({text}); use a device with more free memory, or --dtype bfloat16"
    )


def test_the_counts_of_a_run_are_not_called_damaged(
    score_once: Any, short_rows: str, tmp_path: Path, monkeypatch: Any
) -> None:
    from ladm.runs.folder import Run
    from ladm.runs.unigrams import counts_of_run

    run = tmp_path / "run"
    score_once(short_rows, "--signals", "cds,text", output=run)
    assert counts_of_run(Run.read(run)) is not None
    monkeypatch.setattr(np, "load", failing(MemoryError("Unable to allocate 1.2 MiB")))
    with pytest.raises(LackOfMemoryError, match=r"unigrams\.npy: not enough memory for it, or it is damaged \(Unable"):
        counts_of_run(Run.read(run))


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (json.JSONDecodeError("Expecting value", "", 0), True),
        (pa.ArrowInvalid("not an Arrow file"), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), True),
        (OSError("Expected to read 8 metadata bytes, but only read 4"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (ValueError("Feature type 'Video3' not found"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_saved_data_is_called_damaged_only_where_it_is(
    short_rows: str, monkeypatch: Any, error: Exception, is_damage: bool
) -> None:
    from ladm.corpus.files.data_set import load_split

    monkeypatch.setattr("datasets.load_from_disk", failing(error))
    with pytest.raises(StorageError, match=f"^cannot read {short_rows}") as caught:
        load_split(short_rows)
    assert (", which is damaged or incomplete: " in str(caught.value)) == is_damage


@pytest.mark.parametrize("error", WAYS[:2] + WAYS[-1:], ids=lambda error: type(error).__name__)
def test_documents_are_not_left_out_for_lack_of_memory(monkeypatch: Any, error: BaseException) -> None:
    """The file may be whole: it is named, and both reasons are."""
    from ladm.corpus.documents.reading import DamagedFileError, read_documents
    from ladm.corpus.documents.sources import Source

    monkeypatch.setattr("ladm.corpus.documents.reading._parquet", failing(error))
    with pytest.raises(StorageError, match=r"x\.parquet: not enough memory for it, or it is damaged") as caught:
        list(read_documents(Source("x.parquet", "parquet", ""), text_key="text", skip=0))
    assert not isinstance(caught.value, DamagedFileError)
    assert str(caught.value).endswith("); leave it out of the sources if it is damaged")


def test_a_command_that_meets_it_anywhere_says_so(
    ladm: Callable[..., Result], short_rows: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("ladm.scoring.score.choose_signals", failing(MemoryError()))
    result = ladm("score", short_rows, *SMALL, "--output", tmp_path / "run")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, "ladm: not enough memory to continue (MemoryError); free some, or raise a limit such as ulimit -v"
    )  # fmt: skip


def test_a_folder_that_may_not_be_read_is_no_missing_data_set(short_rows: str, monkeypatch: Any) -> None:
    from ladm.corpus.files.data_set import load_split

    monkeypatch.setattr("datasets.load_from_disk", failing(FileNotFoundError("neither a Dataset nor a DatasetDict")))
    monkeypatch.setattr(Path, "exists", failing(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(StorageError, match=f"^cannot read {short_rows}: Permission denied$"):
        load_split(short_rows)
