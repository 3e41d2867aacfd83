"""A data set on the Hub -> its Parquet files, or its rows as a stream: no more is fetched than is read. No torch."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any

from ladm.errors import LadmError, one_line, printable, raise_if_out_of_memory
from ladm.modeling.hub_access import cached_data_sets_alone, hub_problem
from ladm.modeling.model_files import hub_name, may_be_on_hub

TRAIN = "train"


def may_be_data_set(name: str) -> bool:
    """Can it be the id of a data set on the Hub, by its form?

    `text`, `json` and `parquet` are none: `datasets` takes these for readers of files, and would read all that it finds
    below the working folder.
    """
    if not may_be_on_hub(name):
        return False
    if "/" in name:
        return True
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    return hub_name(name)[0] not in _PACKAGED_DATASETS_MODULES


def parquet_files_of(name: str, *, config: str | None, split: str | None) -> list[str]:
    """The addresses of the Parquet files that a data set on the Hub consists of; none where it is of another kind.

    Raises LadmError where it has no such split, or is not in the cache of a machine that cannot reach the Hub.
    """
    import datasets
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

    base, revision = hub_name(name)
    problem = hub_problem()
    try:
        with cached_data_sets_alone() if problem else contextlib.nullcontext():
            builder = datasets.load_dataset_builder(base, config, revision=revision)
    except Exception as error:
        raise_if_out_of_memory(error, action=f"read {name}")
        if problem:
            raise no_way_to_hub(name, problem) from None
        # No such data set, no network, one in the cache alone: opening it will show, with its own message.
        return []
    files = getattr(builder.config, "data_files", None)
    if not isinstance(builder.config, ParquetConfig) or not files:
        return []
    if (split or TRAIN) not in files:
        raise LadmError(f"{name} has no split {split or TRAIN} (it has {', '.join(map(str, files))})")
    return [str(file) for file in files[split or TRAIN]]


def open_stream(name: str, *, config: str | None, split: str | None) -> Any | None:
    """The rows of a data set on the Hub as an iterable data set of Arrow tables.

    None where it cannot be streamed, with a warning on standard error if it is there. Raises LadmError for no such
    split.
    """
    import datasets

    if hub_problem():
        # It is in the cache, which is read as a whole.
        return None
    base, revision = hub_name(name)
    try:
        streams = datasets.load_dataset(base, config, revision=revision, streaming=True)
    except Exception as error:
        raise_if_out_of_memory(error, action=f"read {name}")
        # No network, one in the cache alone, an archive that is read from its end: opening the whole of it may work.
        # Where there is no such data set, or no network, nothing is fetched, and opening it raises the error.
        if not isinstance(error, (FileNotFoundError, ConnectionError)):
            _warn_once(f"warning   {name} cannot be streamed, so all of it is downloaded: {one_line(error)}")
        return None
    wanted = split or TRAIN
    if wanted not in streams:
        raise LadmError(f"{name} has no split {wanted} (it has {', '.join(map(str, streams))})")
    return streams[wanted].with_format("arrow")


def no_way_to_hub(name: str, problem: str) -> LadmError:
    """The error for a name that is nothing here, where the Hub cannot be reached."""
    return LadmError(
        f"no such data set: {name} is neither a file nor a folder here, nor in the cache, and the Hub cannot be "
        f"reached ({problem})"
    )


@functools.cache
def _warn_once(line: str) -> None:
    # A data set is opened several times: to look at its keys, to check it, to read it.
    print(printable(line), file=sys.stderr)
