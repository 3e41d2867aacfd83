"""The two files of the experiment: the pack, made beforehand, and the state, of what has been measured."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from judge import CLASSES, read_classes

from ladm.storage.files import write_whole

Array = np.ndarray[Any, Any]

OUTCOMES = {name: code for name, code in CLASSES.items() if name != "none"}


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

    @classmethod
    def read(cls, path: Path, classes_path: Path, *, held_out_rows: int | None = None) -> Pack:
        with np.load(path) as content:
            facts = json.loads(content["about"].tobytes())
            held, ids = content["held_out"], content["ids"]
            needles = {name: content[name] for name in ("needle_ids", "needle_places", "needle_distances")}
        classes, judged = read_classes(classes_path, (int(held.sum()), ids.shape[1]))
        if not judged.any():
            sys.exit(f"{classes_path}: no held-out row has its classes yet; run scripts/experiment/judge.py first")
        used = np.flatnonzero(judged)[:held_out_rows]
        about = facts["rows"]
        held_about = [row for row, is_held in zip(about, held, strict=True) if is_held]
        content_digest = hashlib.sha256(path.read_bytes())
        content_digest.update(classes[used].tobytes())
        return cls(
            ids=ids[~held], about=[row for row, is_held in zip(about, held, strict=True) if not is_held],
            held_out=ids[held][used], held_out_about=[held_about[k] for k in used], classes=classes[used],
            student_rows=facts["student_rows"], digest=content_digest.hexdigest()[:16], **needles,
        )  # fmt: skip

    def candidates(self, pool: str) -> list[int]:
        """Places in `ids` of the rows of pool A, or of B, which has the faults too."""
        return [k for k, row in enumerate(self.about) if pool == "B" or row["split"] == "pool"]


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
