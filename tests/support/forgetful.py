"""A disk that keeps only what was synced: every write, truncation and name since the last sync may be lost or torn.

Stands in front of the real disk. What a file holds after a power loss is its last synced content, or, by a draw, some
beginning of what was written since; a name that was made, moved or removed without a sync of its folder may be as it
was before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_link = os.link
"""The real one, whatever a test puts in its place."""


class ForgetfulDisk:
    """Follows all that happens below a folder; `lose_power` then makes it what a disk may have kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._content: dict[int, bytes] = {}
        """Last synced content, by inode."""
        self._names: dict[str, dict[str, int]] = {}
        """Entries of each folder at its last sync: name -> inode."""
        self._kept: dict[int, Path] = {}
        self._store = self.folder.with_name(self.folder.name + ".inodes")
        self._store.mkdir()
        self._remember_names(self.folder)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").resolve()
            if self.folder not in (path, *path.parents):
                return
            if path.is_dir():
                self._remember_names(path)
            elif path.exists():
                self._content[os.fstat(descriptor).st_ino] = path.read_bytes()
                self._keep(path)

        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync = real

    def _remember_names(self, folder: Path) -> None:
        entries = {}
        for path in folder.iterdir():
            entries[path.name] = path.stat().st_ino
            if path.is_file():
                self._keep(path)
        self._names[str(folder.relative_to(self.folder))] = entries

    def _keep(self, path: Path) -> None:
        """Hold on to an inode, so that a name that was removed without a sync can come back."""
        inode = path.stat().st_ino
        if inode not in self._kept:
            self._kept[inode] = self._store / str(inode)
            _link(path, self._kept[inode])

    def lose_power(self, draw: Any) -> None:
        """Make the folder one of the states that the disk may be in. `draw(n)` gives a number from 0 to n."""
        for folder in sorted(self._all_folders(), key=lambda path: len(path.parts)):
            if folder.exists():
                self._lose_names(folder, draw)
        for path in list(self.folder.rglob("*")):
            if path.is_file():
                self._lose_content(path, draw)
        self._content = {p.stat().st_ino: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        for folder in self._all_folders():
            self._remember_names(folder)

    def _all_folders(self) -> list[Path]:
        return [self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())]

    def _lose_names(self, folder: Path, draw: Any) -> None:
        synced = self._names.get(str(folder.relative_to(self.folder)), {})
        now = {path.name: path.stat().st_ino for path in folder.iterdir()}
        drawn: dict[int | None, int] = {}
        for name in sorted(set(now) | set(synced)):
            if now.get(name) == synced.get(name):
                continue
            # A file that was moved is under its old name or its new one, never under neither.
            inode = now.get(name, synced.get(name))
            moved = inode in now.values() and inode in synced.values()
            kept = drawn.setdefault(inode, draw(1)) if moved else draw(1)
            if kept:
                continue
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
            if synced.get(name) in self._kept:
                _link(self._kept[synced[name]], folder / name)

    def _lose_content(self, path: Path, draw: Any) -> None:
        """Some beginning of what was written since the last sync, or a hole of NUL bytes in place of the rest."""
        now, synced = path.read_bytes(), self._content.get(path.stat().st_ino, b"")
        if now == synced:
            return
        shared = next(
            (k for k, (a, b) in enumerate(zip(now, synced, strict=False)) if a != b), min(len(now), len(synced))
        )
        cut = shared + draw(len(now) - shared)
        kept = now[:cut] if len(now) >= len(synced) or draw(1) else synced
        if kept == now[:cut] and cut < len(now) and draw(2) == 0:
            kept += b"\0" * draw(len(now) - cut)
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(descriptor, kept)
        os.close(descriptor)

    def forget(self) -> None:
        """Let go of what was held."""
        shutil.rmtree(self._store, ignore_errors=True)
