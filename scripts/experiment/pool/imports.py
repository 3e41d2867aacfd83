"""Source files -> the order in which a reader would want them: what is imported stands before what imports it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

IMPORTS = {
    ".py": r"(?m)^\s*(?:from\s+(\.*[\w.]*)\s+import|import\s+([\w.]+))",
    ".c": r'(?m)^\s*#\s*include\s+["<]([^">]+)[">]',
    ".js": r"""(?:require\(|from\s+)['"](\.[^'"]+)['"]""",
    ".rb": r"""(?m)^\s*require(?:_relative)?\s+['"]([^'"]+)['"]""",
}
LANGUAGE = {".h": ".c", ".hpp": ".c", ".cpp": ".c", ".cc": ".c", ".hh": ".c", ".mjs": ".js", ".ts": ".js"}


def imported_names(path: str, text: str) -> frozenset[str]:
    """Last components of what a file imports, without suffixes: `from ..a.b import c` -> b, `#include "x/y.h"` -> y."""
    suffix = posixpath.splitext(path)[1]
    pattern = IMPORTS.get(LANGUAGE.get(suffix, suffix))
    if pattern is None:
        return frozenset()
    found = re.findall(pattern, text)
    names = {name for each in found for name in (each if isinstance(each, tuple) else (each,)) if name}
    if suffix == ".py":
        last = {name.rpartition(".")[2] for name in names}
        # `from . import a, b` names the modules after `import`.
        listed = re.findall(r"(?m)^\s*from\s+\.+\s+import\s+\(?([\w, ]+)", text)
        return frozenset(last | {name.strip() for each in listed for name in each.split(",")}) - {""}
    return frozenset(stem(name) for name in names)


def stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def import_order(imports: Mapping[str, frozenset[str]]) -> list[str]:
    """Paths, each after the paths whose stems it imports; otherwise by name. A circle is cut where it is entered.

    Worked example: {"a.py": {"b"}, "b.py": {}, "c.py": {"a"}} -> [b.py, a.py, c.py].
    """
    by_stem: dict[str, list[str]] = {}
    for path in sorted(imports):
        by_stem.setdefault(stem(path), []).append(path)
    order: list[str] = []
    entered: set[str] = set()
    for start in sorted(imports):
        # A stack instead of recursion: chains of imports may be longer than Python's recursion limit.
        stack = [(start, False)]
        while stack:
            path, done = stack.pop()
            if done:
                order.append(path)
            elif path not in entered:
                entered.add(path)
                stack.append((path, True))
                needed = [each for name in sorted(imports[path], reverse=True) for each in by_stem.get(name, [])]
                stack += [(each, False) for each in needed if each not in entered]
    return order
