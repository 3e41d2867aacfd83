"""A folder written by `save_to_disk`, or a Hub id -> one of its splits, which never opens a file that a row names.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ladm.corpus.files.hub import TRAIN, may_be_data_set, no_way_to_hub
from ladm.corpus.files.id_columns import may_hold_ids
from ladm.errors import LadmError, StorageError, is_out_of_memory, one_line, reading_problem
from ladm.modeling.hub_access import cached_data_sets_alone, hub_problem
from ladm.modeling.model_files import hub_name
from ladm.storage.files import data_set_path, io_errors

FILES_OF_A_SAVED_SET = ("state.json", "dataset_info.json", "dataset_dict.json")


def is_saved(folder: Path) -> bool:
    """Is it a data set saved by `save_to_disk`?"""
    return any((folder / mark).exists() for mark in ("dataset_dict.json", "state.json"))


@contextlib.contextmanager
def reading_rows(name: str) -> Iterator[None]:
    """Turn what a damaged data set makes Arrow or Python raise into a StorageError that names it."""
    try:
        yield
    # SystemError and MemoryError: texts and lists whose damaged offsets give them negative or absurd sizes.
    except (pa.ArrowException, UnicodeError, OSError, SystemError, MemoryError) as error:
        raise StorageError(f"cannot read {name}: {reading_problem(error)}") from None


def load_split(name: str, *, split: str | None = None, config: str | None = None) -> Any:
    """The `datasets.Dataset` of a folder or Hub id, perhaps with `@revision`; of several splits, `split` or `train`.

    Values of Image, Audio and the like come as stored: a struct of bytes and path.
    Raises LadmError with one line when it is neither, or has no such split; StorageError for a damaged folder.
    """
    import datasets

    path, problem = Path(name), None
    try:
        if path.is_dir():
            loaded = datasets.load_from_disk(data_set_path(path))
        elif not path.exists() and may_be_data_set(name):
            base, revision = hub_name(name)
            chosen = {"name": config, "revision": revision}
            problem = hub_problem()
            with cached_data_sets_alone() if problem else contextlib.nullcontext():
                loaded = datasets.load_dataset(
                    base, **{key: value for key, value in chosen.items() if value is not None}
                )
        else:
            raise no_such_data_set(name)
    except LadmError:
        raise
    except IndexError:
        # What `datasets` raises for a saved data set without a single shard.
        raise LadmError(f"{name} has no rows") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise StorageError(f"cannot read {name}: {reading_problem(error)}") from None
        # Arrow, JSON, the file system and the Hub client each raise exceptions of their own here.
        with io_errors(path, "read"):
            is_ours = any((path / file).exists() for file in FILES_OF_A_SAVED_SET)
        if is_ours:
            what = ", which is damaged or incomplete" if _is_damage(error) else ""
            raise StorageError(f"cannot read {name}{what}: {one_line(error)}") from None
        if problem:
            raise no_way_to_hub(name, problem) from None
        where = "is not a data set saved by save_to_disk" if path.is_dir() else "is neither a folder nor on the Hub"
        raise LadmError(f"no such data set: {name} {where}: {one_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        wanted = split or TRAIN
        if wanted not in loaded:
            raise LadmError(f"{name} has no split {wanted} (it has {', '.join(map(str, loaded)) or 'none'})")
        loaded = loaded[wanted]
    elif split is not None and str(loaded.split or TRAIN) != split:
        raise LadmError(f"{name} has no split {split}: it is a single data set, not several")
    return without_files(loaded)


def no_such_data_set(name: str) -> LadmError:
    """The error for a name that is nothing here and cannot be an id on the Hub."""
    return LadmError(f"no such data set: {name} is neither a folder nor a Hub id such as org/name")


def _is_damage(error: Exception) -> bool:
    """Are files of a saved data set missing or broken, rather than locked or of a newer version of `datasets`?"""
    damage = (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError, FileNotFoundError, KeyError, TypeError)
    if isinstance(error, damage):
        return True
    # Arrow's own reading errors are an OSError without a number.
    return type(error) is OSError and error.errno is None


def without_files(dataset: Any) -> Any:
    """The same table under features that are never decoded.

    Reading a value of an Image feature opens its path, and `save_to_disk` copies that file into what it saves.
    The path comes from whoever made the data set: it may be any file of this machine, or an address that would
    learn of us. So the feature is replaced by its storage, which is the same Arrow type, and nothing is opened.
    """
    import datasets

    features = datasets.Features({column: _storage(feature) for column, feature in dataset.features.items()})
    if features == dataset.features:
        return dataset
    # The table's own metadata names the old features too, and would win over the new ones.
    table = dataset.data.replace_schema_metadata(None)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), split=dataset.split)


def _storage(feature: Any) -> Any:
    """A feature with every part that decodes something replaced by how it is stored, at any depth."""
    import datasets

    if isinstance(feature, dict):
        return {name: _storage(part) for name, part in feature.items()}
    # An old way to write a list of something.
    if isinstance(feature, (list, tuple)):
        return [_storage(feature[0])]
    if isinstance(feature, datasets.LargeList):
        return datasets.LargeList(_storage(feature.feature))
    if isinstance(feature, datasets.List):
        return datasets.List(_storage(feature.feature), length=feature.length)
    # Json is decoded from the text in the row itself and opens nothing.
    if not hasattr(feature, "decode_example") or isinstance(feature, datasets.Json):
        return feature
    return datasets.Features.from_arrow_schema(pa.schema([("stored", feature())]))["stored"]


def is_whole_number(dataset: Any, column: str) -> bool:
    """Does a column hold whole numbers, or nothing?"""
    kind = dataset.data.schema.field(column).type
    return bool(pa.types.is_integer(kind) and kind != pa.uint64()) or pa.types.is_null(kind)


def is_name(dataset: Any, column: str) -> bool:
    """Text or whole numbers; a column of objects by such a name is something else."""
    kind = dataset.features[column]
    arrow = dataset.data.schema.field(column).type
    named = pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_integer(arrow)
    return bool(named and getattr(kind, "decode_example", None) is None)


def require_token_ids(dataset: Any, name: str) -> None:
    """Raise LadmError where the type of the column `input_ids` cannot hold token ids."""
    kind = dataset.data.schema.field("input_ids").type
    if not may_hold_ids(kind):
        # The name of an extension type of `datasets` cannot be printed.
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        raise LadmError(f"{name}: input_ids holds {kind}, not lists of token ids; tokenise it first: ladm prepare")
