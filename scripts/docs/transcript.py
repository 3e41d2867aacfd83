"""Writes docs/transcript.md, the first hour with a corpus, from a real run: python scripts/docs/transcript.py MODEL

MODEL is a folder, such as the one that `python scripts/toy/fetch_model.py MODEL` makes. Takes a minute of a CPU.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "transcript.md"
DOCUMENTS = ROOT / "ladm" / "data" / "documents.jsonl.gz"
LENGTH_TOKENS = 512
MOST_DOCUMENTS = 12
HEAD = """# From a corpus of your own to a subset: a transcript

The whole of a session, written by `python scripts/docs/transcript.py MODEL`. The corpus is 12 real documents in two
files, whose text, domain and name have keys of their own; the model is SmolLM2-135M. What a command prints goes to
standard output, or to standard error where it is about the work; both are shown as a terminal shows them.
"""
TAIL = """
Every row of the subset says which document it is: its name, its domain, and the file and line that it was read from.
The same three are in `run/scores.parquet`, so that any score can be joined back to the corpus.
[formats.md](formats.md) describes all files.
"""
SHOW_SUBSET = """
import datasets
for row in datasets.load_from_disk("subset")["train"]:
    print(row["id"], row["domain"], row["source"], row["url"], sep=" | ")
""".strip()


def commands(length: int) -> list[list[str]]:
    """The commands of the transcript, in order."""
    return [
        ["head", "-c", "150", "corpus/part-0.jsonl"],
        [
            "ladm", "prepare", "corpus/*.jsonl", "--tokenizer", "model", "--length", str(length),
            "--text-key", "body", "--domain-key", "collection", "--id-key", "name", "-o", "rows",
        ],
        ["ladm", "score", "rows", "--model", "model", "-o", "run"],
        ["ladm", "select", "run", "--tokens", str(4 * length), "-o", "subset"],
        ["python", "-c", SHOW_SUBSET],
    ]  # fmt: skip


def make_corpus(folder: Path) -> None:
    """Write the documents as a stranger's corpus has them: in several files, under keys of its own."""
    folder.mkdir()
    records = [json.loads(line) for line in gzip.decompress(DOCUMENTS.read_bytes()).splitlines()[:MOST_DOCUMENTS]]
    for part in range(2):
        lines = [
            json.dumps(
                {
                    "name": f"doc-{number:02d}",
                    "collection": record["meta"]["pile_set_name"],
                    "url": f"https://example.org/{number}",
                    "body": record["text"],
                }
            )
            for number, record in enumerate(records)
            if number % 2 == part
        ]
        (folder / f"part-{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(command: list[str], folder: Path) -> str:
    """What a command prints. Raises CalledProcessError where it fails, because the page promises that none does."""
    # The programs of this environment, whatever else is on the path.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # Of a bar that is drawn over itself only its last state stays on a terminal.
    return "\n".join(line.rsplit("\r", 1)[-1].rstrip() for line in done.stdout.rstrip().split("\n"))


def transcript(model: Path, length: int) -> str:
    """The page, made by running its commands in a folder of their own."""
    parts = [HEAD]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        make_corpus(folder / "corpus")
        (folder / "model").symlink_to(model.resolve(), target_is_directory=True)
        for command in commands(length):
            shown = run(command, folder).replace(str(folder), "")
            parts.append(f"```console\n$ {shell(command)}\n{shown}\n```\n")
    return "\n".join(parts) + TAIL


def shell(command: list[str]) -> str:
    """The command as a person types it."""
    return shlex.join(command)


if __name__ == "__main__":
    PAGE.write_text(transcript(Path(sys.argv[1]), LENGTH_TOKENS), encoding="utf-8")
