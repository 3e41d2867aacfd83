"""Seals of folders: what differs is refused, and seals of earlier versions are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ladm.errors import StorageError
from ladm.storage.folder_seal import require_undamaged, seal_folder
from ladm.storage.json_object import json_with_checksum


@pytest.mark.parametrize("algorithm", ["xxh3", "sha256"])
def test_a_sealed_folder(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "below").mkdir()
    paths = [tmp_path / "a", tmp_path / "below" / "b"]
    for path in paths:
        path.write_text(path.name)
    if algorithm == "xxh3":
        seal_folder(tmp_path, seal="seal")
    else:
        digests = {str(path.relative_to(tmp_path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        (tmp_path / "seal").write_bytes(json_with_checksum(digests))
    require_undamaged(tmp_path, seal="seal", remedy="remove it")
    for path in paths:
        for damage in (lambda path=path: path.write_text("c"), path.unlink):
            damage()
            with pytest.raises(StorageError) as caught:
                require_undamaged(tmp_path, seal="seal", remedy="remove it")
            assert str(caught.value) == (
                f"{path} is damaged or missing: it does not match its digest in seal; remove it"
            )
        path.write_text(path.name)
    (tmp_path / "seal").write_text("{")
    with pytest.raises(StorageError, match="seal is damaged or cannot be read; remove it"):
        require_undamaged(tmp_path, seal="seal", remedy="remove it")
