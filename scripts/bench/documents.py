"""Debian and Python packages -> calibration.jsonl.gz and evaluation.jsonl.gz: long documents from disjoint sources.

    python scripts/bench/documents.py runs/bench

Nothing is installed. `calibration` holds what a profile is chosen with, `evaluation` what it is judged on, and lists
of a fixed structure (`meta.kind: list`). No package is in both; `unicode-data` is also in the toy (another file).
`sources.json` has the versions.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from texts import read, unpack_debian, unpack_wheels

SHORTEST, LONGEST = 24_000, 64_000
"""Characters of a document; the least leaves 4,096 tokens of SmolLM2 or Gemma in nearly every text."""

# domain, package, where (below the unpacked packages), how many at most
CALIBRATION = [
    ("Essays", "anarchism", "usr/share/doc/anarchism/html/sec*.html", 12),
    ("Perl manual", "perl-doc", "usr/share/perl/*/pod/perl*.pod", 8),
    ("Apache manual", "apache2-doc", "usr/share/doc/apache2-doc/manual/en/**/*.html", 6),
    ("Vim manual", "vim-runtime", "usr/share/vim/vim*/doc/*.txt", 6),
    ("Git manual", "git-doc", "usr/share/doc/git-doc/**/*.txt", 6),
    ("Erlang manual", "erlang-doc", "usr/share/doc/erlang-doc/doc/*/*.html", 6),
    ("Django source", "django==5.2.19", "django/**/*.py", 8),
    ("SymPy source", "sympy==1.14.0", "sympy/**/*.py", 8),
    ("Twisted source", "twisted==26.10.0", "twisted/**/*.py", 4),
]
EVALUATION = [
    ("Debian Reference", "debian-reference-en", "usr/share/debian-reference/ch*.en.html", 9),
    ("Debian history", "debian-history", "usr/share/doc/debian-history/docs/*.en.html", 3),
    ("Debian installation", "installation-guide-amd64", "usr/share/doc/installation-guide-amd64/en/*.html", 4),
    ("Rust book", "rust-doc", "usr/share/doc/rust-doc/html/{book,reference,nomicon}/*.html", 14),
    ("Haskell report", "haskell98-report", "usr/share/doc/haskell98-report/**/*.html", 4),
    ("Octave manual", "octave-doc", "usr/share/doc/octave/octave.html/*.html", 6),
    ("Maxima manual", "maxima-doc", "usr/share/doc/maxima-doc/html/maxima_*.html", 6),
    ("Exim manual", "exim4-doc-html", "usr/share/doc/exim4-doc-html/spec_html/ch-*.html", 10),
    ("Valgrind manual", "valgrind", "usr/share/doc/valgrind/html/*-manual.html", 6),
    ("Zsh manual", "zsh-doc", "usr/share/doc/zsh-common/html/*.html", 5),
    ("GHC manual", "ghc-doc", "usr/share/doc/ghc-doc/html/users_guide/**/*.html", 10),
    ("SciPy source", "scipy==1.17.1", "scipy/**/*.py", 12),
    ("SQLAlchemy source", "sqlalchemy==2.1.9", "sqlalchemy/**/*.py", 10),
    ("pandas source", "pandas==3.1.1", "pandas/**/*.py", 12),
    ("NetworkX source", "networkx==3.6.1", "networkx/**/*.py", 6),
    ("mypy source", "mypy==2.4.1", "mypy/**/*.py", 10),
]
LISTS = [
    ("Changelogs", "systemd", "usr/share/doc/systemd/changelog.Debian.gz", 1),
    ("Changelogs", "valgrind", "usr/share/doc/valgrind/changelog.Debian.gz", 1),
    ("Changelogs", "octave-doc", "usr/share/doc/octave-doc/changelog.gz", 1),
    ("Changelogs", "bash-doc", "usr/share/doc/bash-doc/changelog.gz", 1),
    ("Changelogs", "nasm", "usr/share/doc/nasm/changelog.gz", 1),
    ("Changelogs", "tcl8.6-doc", "usr/share/doc/tcl8.6-doc/changelog.gz", 1),
    ("Changelogs", "clisp-doc", "usr/share/doc/clisp-doc/changelog.gz", 1),
    ("Registers", "hwdata", "usr/share/hwdata/pnp.ids", 1),
    ("Registers", "ieee-data", "usr/share/ieee-data/{oui,iab,mam,oui36}.*", 6),
    (
        "Tables",
        "unicode-data",
        "usr/share/unicode/{Blocks,DerivedAge,EastAsianWidth,Scripts,NameAliases,LineBreak}.txt",
        6,
    ),
    ("Indices", "octave-doc", "usr/share/doc/octave/*/*Index.html", 2),
    ("Indices", "zsh-doc", "usr/share/doc/zsh-common/html/*Index.html", 3),
]
LEFT_OUT = re.compile(
    r"(?i)test|index|[_/]toc|history|changelog|delta|locale/|/__|version\d|_vendor|parsetab|tables?\."
)
"""Files that are lists themselves, or generated."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        packages = sorted({package for _, package, _, _ in CALIBRATION + EVALUATION + LISTS})
        versions = unpack_debian([package for package in packages if "==" not in package], root)
        unpack_wheels([package for package in packages if "==" in package], root)
        calibration = gather(root, CALIBRATION, kind="document")
        evaluation = gather(root, EVALUATION, kind="document") + gather(root, LISTS, kind="list")
    write(folder / "calibration.jsonl.gz", calibration)
    write(folder / "evaluation.jsonl.gz", evaluation)
    versions |= dict(package.split("==") for package in packages if "==" in package)
    (folder / "sources.json").write_text(json.dumps({"versions": versions}, indent=1, sort_keys=True) + "\n")


def gather(root: Path, sources: list[tuple[str, str, str, int]], *, kind: str) -> list[dict[str, object]]:
    """Up to the stated number of documents of every source, always the same draw."""
    documents = []
    for domain, _, pattern, most in sources:
        paths = sorted({path for each in alternatives(pattern) for path in root.glob(each)})
        random.Random(domain).shuffle(paths)
        taken = 0
        for path in paths:
            name = str(path.relative_to(root))
            if taken == most or (kind == "document" and LEFT_OUT.search(name)):
                continue
            text = read(path)
            if len(text) >= SHORTEST:
                taken += 1
                meta = {"pile_set_name": domain, "kind": kind, "title": name}
                documents.append({"text": text[:LONGEST], "meta": meta})
        print(f"{domain:20} {taken:3} of {len(paths)} files")
    return documents


def alternatives(pattern: str) -> list[str]:
    """`a{b,c}d` -> [`abd`, `acd`]."""
    found = re.search(r"\{([^}]*)\}", pattern)
    if found is None:
        return [pattern]
    return [pattern[: found.start()] + each + pattern[found.end() :] for each in found[1].split(",")]


def write(path: Path, documents: list[dict[str, object]]) -> None:
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        file.write(lines.encode())
    print(f"{path}: {len(documents)} documents")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
