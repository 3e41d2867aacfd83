"""A model folder or Hub id -> its folder, checked, and the SHA-256 of what decides a score. Imports no torch.

Weights are read from safetensors alone: a pickle could run any code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ladm.errors import LadmError, StorageError, one_line, raise_if_out_of_memory
from ladm.storage.digests import file_sha256
from ladm.storage.file_states import FileStates
from ladm.storage.files import io_errors, require_utf8
from ladm.storage.json_object import read_json_object

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_REVISION = re.compile(rf"({HUB_ID.pattern})@([\w./-]+)")
"""`org/name@revision`: a branch, a tag or a commit."""
CONFIG_FILE = "config.json"
LFS_POINTER = b"version https://git-lfs"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


def model_folder(name: str, *, weights: bool = True) -> Path:
    """The folder of a model, fetched if it is a Hub id; without its weights, if these are not needed.

    Raises LadmError unless it has a config and safetensors, and UsageError for a name that is not UTF-8.
    """
    folder = _found(name, weights=weights)
    # Whatever is made with a model records where it is.
    require_utf8(str(folder.absolute()))
    if weights:
        _require_safetensors(name, folder)
    else:
        _require_config(name, folder)
    return folder


def _found(name: str, *, weights: bool) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists() or not may_be_on_hub(name):
        raise LadmError(f"no such model: {name} is neither a folder nor a Hub id such as org/name")
    from huggingface_hub import snapshot_download

    hub_id, revision = hub_name(name)
    patterns = [*(["*.safetensors"] if weights else []), "*.json", *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise_if_out_of_memory(error, action=f"fetch {name}")
        # The Hub client raises a dozen exceptions of its own and of its transport, which differ between versions.
        what = one_line(error)
        raise LadmError(
            f"no such model: {name} is not a folder, and cannot be downloaded from the Hub: {what}"
        ) from None


def may_be_on_hub(name: str) -> bool:
    """Can it be an id on the Hub, by its form?"""
    hub_id = hub_name(name)[0]
    return bool(HUB_ID.fullmatch(hub_id)) and not hub_id.startswith(".")


def hub_name(name: str) -> tuple[str, str | None]:
    """`org/name@revision` -> (`org/name`, `revision`); without a revision None, which is the main branch."""
    found = HUB_REVISION.fullmatch(name)
    return (found[1], found[found.re.groups]) if found else (name, None)


def _require_safetensors(name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise LadmError(
            f"{name}: this is an adapter{_base_of_adapter(folder)}, not a whole model; merge it into its base model "
            "and save that (merge_and_unload and save_pretrained of peft)"
        )
    _require_config(name, folder)
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        _refuse_pointer(name, path)
    if weights:
        _require_own_shards(name, folder)
        return
    pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(suffix))
    if pickles:
        raise LadmError(
            f"{name}: only pickled weights there ({pickles[0]}), which could run any code and are never opened; "
            "convert them to safetensors"
        )
    raise LadmError(f"{name}: no *.safetensors there")


def _require_config(name: str, folder: Path) -> None:
    if not (folder / CONFIG_FILE).is_file():
        raise LadmError(f"{name}: no config.json there; a model folder holds config.json and *.safetensors")
    _refuse_pointer(name, folder / CONFIG_FILE)


def _refuse_pointer(name: str, path: Path) -> None:
    with io_errors(path, "read"), path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise LadmError(f"{name}: {path.name} is a Git LFS pointer, not the file itself; run git lfs pull there")


def _require_own_shards(name: str, folder: Path) -> None:
    """Raise LadmError for an index of weights that could decide, unseen, which weights are loaded.

    Only the files of the folder are the identity of a model. An index that names others, or that chooses between two
    files with the same weight, would change the model and not its identity.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        weight_map = {str(weight): str(shard) for weight, shard in read_json_object(index)["weight_map"].items()}
    except (StorageError, KeyError, AttributeError):
        raise LadmError(f"{name}: {index.name} is not an index of weights") from None
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise LadmError(f"{name}: {index.name} names weights that are not in the folder itself: {shard[:200]}")
        if not (folder / shard).is_file():
            raise LadmError(f"{name}: {shard[:200]} is missing, which {index.name} names")
    found: dict[str, str] = {}
    for shard in shards:
        for weight in _weights_in(name, folder / shard):
            if weight in found:
                raise LadmError(f"{name}: both {found[weight]} and {shard} hold {weight[:200]}")
            found[weight] = shard
    for weight, shard in weight_map.items():
        if found.get(weight) != shard:
            raise LadmError(f"{name}: {index.name} looks for {weight[:200]} in {shard}, which does not hold it")


def _weights_in(name: str, path: Path) -> list[str]:
    """The names of the weights in a file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise_if_out_of_memory(error, action=f"read {path}")
        raise LadmError(f"{name}: {path.name} cannot be read: {one_line(error)}; fetch it again") from None


def _base_of_adapter(folder: Path) -> str:
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return f" of {base}" if isinstance(base, str) else ""


def model_identity(folder: str, *, weights: bool = True, remember: bool = True) -> dict[str, str]:
    """SHA-256 of `config.json` and of every safetensors file, by file name; `remember` as for `file_sha256`.

    `weights=False`: of `config.json` alone. Raises StorageError for a file that cannot be read.
    """
    paths = deciding_files(folder, weights=weights)
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(partial(_sha256, remember=remember), paths)
    return {path.name: digest for path, digest in zip(paths, digests, strict=True)}


def deciding_files(folder: str, *, weights: bool = True) -> list[Path]:
    """The files that decide a score; without the weights, where no signal runs the model."""
    return [Path(folder) / CONFIG_FILE, *(sorted(Path(folder).glob("*.safetensors")) if weights else [])]


@dataclass(frozen=True, kw_only=True)
class ModelFingerprint:
    """The content that the files of a model must keep while it scores."""

    name: str
    sha256: Mapping[str, str]
    """By file name, as in `model_identity`."""
    files: FileStates
    """Before the digests were computed."""

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"the model {self.name}"

    def require_same(self, changed: Sequence[str]) -> None:
        """Raise LadmError where one of these files has another content, StorageError where it cannot be read."""
        with ThreadPoolExecutor(4) as pool:
            same = list(pool.map(self._is_same, changed))
        if not all(same):
            name = Path(changed[same.index(False)]).name
            raise LadmError(
                f"{self.label} changed while it was used ({name}); no score of the changed model was stored: restore "
                "it and run the same command again, or give another --output for the changed one"
            )

    def _is_same(self, path: str) -> bool:
        try:
            return _sha256(Path(path), remember=False) == self.sha256.get(Path(path).name)
        except ValueError:
            # A config.json that is only half written so far.
            return False


def tokenizer_identity(folder: str) -> dict[str, str]:
    """SHA-256 of what a tokenizer is made of, by file name; empty for a model that comes without one."""
    paths = [Path(folder) / name for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")]
    return {path.name: _sha256(path, remember=True) for path in paths if path.exists()}


def _sha256(path: Path, *, remember: bool) -> str:
    with io_errors(path, "read"):
        if path.name == CONFIG_FILE:
            content = json.loads(path.read_text(encoding="utf-8"))
            return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return file_sha256(path, remember=remember)
