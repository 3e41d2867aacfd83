"""Seals of folders: what differs is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladm.errors import StorageError
from ladm.storage.folder_seal import require_undamaged, seal_folder


def test_a_sealed_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    paths = [tmp_path / "a", tmp_path / "below" / "b"]
    for path in paths:
        path.write_text(path.name)
    seal_folder(tmp_path, seal="seal")
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
