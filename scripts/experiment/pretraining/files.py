"""The two files of the experiment: the pack, made beforehand, and the state, of what has been measured."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from judge import CLASSES, read_classes

from ladm.storage.files import write_whole

Array = np.ndarray[Any, Any]

OUTCOMES = {name: code for name, code in CLASSES.items() if name != "none"}


def arrays_digest(arrays: Mapping[str, Array]) -> str:
    """Of names, dtypes, shapes and values: the same whatever zlib compressed them, and in whatever order.

    A zlib that compresses differently still changes a pack's digest where the rows' gzip ratios differ: arms choose by
    them.
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        # Little-endian and row by row, on every machine.
        plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {plain.dtype.str} {array.shape}\n".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Rows of the pool and its faults (`ids`), held-out rows with classes, and needles."""

    ids: Array
    about: list[dict[str, Any]]
    held_out: Array
    held_out_about: list[dict[str, Any]]
    classes: Array
    student_rows: int
    needle_ids: Array
    needle_places: Array
    needle_distances: Array
    digest: str
    classes_digest: str

    @classmethod
    def read(cls, path: Path, classes_path: Path, *, held_out_rows: int | None = None) -> Pack:
        with np.load(path) as content:
            facts = json.loads(content["about"].tobytes())
            held, ids = content["held_out"], content["ids"]
            needles = {name: content[name] for name in ("needle_ids", "needle_places", "needle_distances")}
            digest = arrays_digest({name: content[name] for name in content.files})
        # Tokens of a row that is not judged are of no class, and count in no outcome.
        classes, _ = read_classes(classes_path, (int(held.sum()), ids.shape[1]))
        used = np.arange(len(classes))[:held_out_rows]
        about = facts["rows"]
        held_about = [row for row, is_held in zip(about, held, strict=True) if is_held]
        return cls(
            ids=ids[~held], about=[row for row, is_held in zip(about, held, strict=True) if not is_held],
            held_out=ids[held][used], held_out_about=[held_about[k] for k in used], classes=classes[used],
            student_rows=facts["student_rows"], digest=digest,
            classes_digest=hashlib.sha256(classes[used].tobytes()).hexdigest()[:16], **needles,
        )  # fmt: skip

    def candidates(self, pool: str) -> list[int]:
        """Places in `ids` of the rows of pool A, or of B, which has the faults too."""
        return [k for k, row in enumerate(self.about) if pool == "B" or row["split"] == "pool"]


TOKEN_STEP = 1 / 16
"""Token losses are stored in a byte each.

Rounding lowers the mean of the committed trained students by 0.0016 to 0.0018, because losses below 1 / 32 are common
and become 0; that of the untrained model by 0.0009.
"""


def in_steps(losses: Array) -> Array:
    """Losses in steps of `TOKEN_STEP`, a byte each; a loss above 15.94 counts as 15.94."""
    return np.round(losses / TOKEN_STEP).clip(0, 255).astype(np.uint8)


def as_stored(losses: Array) -> Array:
    """Losses as they are read back from a file of all tokens.

    Every outcome is made of these. Rounding has a bias; students whose classes came before and after their training
    can be compared because it is the same for both.
    """
    return np.asarray(in_steps(losses) * np.float32(TOKEN_STEP))


def _losses_name(name: str) -> str:
    """The file of a student, whose name has characters that a file's should not."""
    return f"{name.replace('/', '-').replace(' ', '_').replace(',', '')}.npz"


def _is_archive(place: Path) -> bool:
    return place.suffix == ".zip"


def write_token_losses(place: Path, name: str, long: Array, short: Array) -> None:
    """Losses of all tokens of the far halves (rows, T / 2), with all and with 1K of context, for classes made later.

    `place` is a folder, which gets a file for every student, or a file `*.zip` of all students, for a machine that
    returns few files.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, long=in_steps(long), short=in_steps(short))
    if not _is_archive(place):
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / _losses_name(name), [buffer.getvalue()])
        return
    members = {}
    if place.exists():
        with zipfile.ZipFile(place) as archive:
            members = {each: archive.read(each) for each in archive.namelist()}
    members[_losses_name(name)] = buffer.getvalue()
    # Written as a whole every time: a kill while something is appended would leave an archive that cannot be read.
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for each, content in members.items():
            archive.writestr(zipfile.ZipInfo(each), content)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, [whole.getvalue()])


def read_token_losses(places: Sequence[Path], name: str) -> dict[str, Array]:
    """The losses of a student from the first of the folders and archives that has them."""
    for place in places:
        if _is_archive(place):
            with zipfile.ZipFile(place) as archive:
                if _losses_name(name) not in archive.namelist():
                    continue
                found: Any = io.BytesIO(archive.read(_losses_name(name)))
        elif (place / _losses_name(name)).exists():
            found = place / _losses_name(name)
        else:
            continue
        with np.load(found) as content:
            return {form: content[form] * np.float32(TOKEN_STEP) for form in ("long", "short")}
    sys.exit(f"no losses of all tokens of {name} in {', '.join(map(str, places))}")


def sums_by_class(long: Array, short: Array, classes: Array) -> dict[str, dict[str, list[float]]]:
    """Of each form and class, the sum of losses over the far half of every row: what an outcome is made of."""
    far = classes[:, classes.shape[1] // 2 :]

    def sums(values: Array, code: int) -> list[float]:
        return [round(float(x[at == code].sum(dtype=np.float64)), 4) for x, at in zip(values, far, strict=True)]

    return {
        form: {name: sums(values, code) for name, code in OUTCOMES.items()}
        for form, values in (("long", long), ("short", short))
    }


CONFIG_WITHOUT = ("transformers_version", "_model_name_or_path")
"""Keys that say who wrote a config and where from; the same model has others after another conversion."""


def model_identity(folder: Path) -> dict[str, str]:
    """Digests of a model folder's config and of its weights: equal whichever release of transformers wrote them."""
    config = json.loads((folder / "config.json").read_text())
    plain = {key: value for key, value in config.items() if key not in CONFIG_WITHOUT}
    weights = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        sys.exit(f"{folder} has no *.safetensors")
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                weights.update(block)
    return {
        "model config": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16],
        "weights file": weights.hexdigest()[:16],
    }


class State:
    """What has been measured, in one file."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"identity": identity, "scores": {}, "students": {}}
        if path.exists():
            self.content = json.loads(gzip.decompress(path.read_bytes()))
        differing = {key for key in identity if self.content["identity"].get(key) != identity[key]}
        if differing:
            print(
                f"{path} was started with another {', '.join(sorted(differing))}; give another --state", file=sys.stderr
            )
            sys.exit(2)
        self.saved = time.monotonic()

    def save(self) -> None:
        write_whole(self.path, [gzip.compress(json.dumps(self.content).encode(), mtime=0)])
        self.saved = time.monotonic()
