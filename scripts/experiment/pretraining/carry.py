"""A large file -> parts below a given size and a list of them, to copy one at a time; and the parts -> the file again.

    python scripts/experiment/pretraining/carry.py split runs/experiment/smollm2.gguf --output runs/experiment/carry
    python scripts/experiment/pretraining/carry.py join runs/experiment/carry/smollm2.gguf.json --output smollm2.gguf

Every part and the whole have a digest, so that a part that is missing, torn or of another file is named.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path

import click

from ladm.storage.files import write_whole

MEGABYTES = 50.0
"""Leaves room for the pack, the classes and the state beside a part where 64 MiB are taken at a time."""


def split(path: Path, folder: Path, *, most_bytes: int) -> Path:
    """Write the parts of a file, all of one size but the last, and the list of them; returns the list."""
    total = path.stat().st_size
    count = max(1, math.ceil(total / most_bytes))
    size = math.ceil(total / count)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for k in range(count):
            content = file.read(size)
            whole.update(content)
            name = f"{path.name}.part-{k + 1}-of-{count}"
            write_whole(folder / name, [content])
            parts.append({"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    about = {"name": path.name, "bytes": total, "sha256": whole.hexdigest(), "parts": parts}
    found = folder / f"{path.name}.json"
    write_whole(found, [json.dumps(about, indent=1).encode() + b"\n"])
    return found


def join(listed: Path, output: Path) -> str:
    """Write the file of which `listed` names the parts, which lie beside it; returns its SHA-256."""
    about = json.loads(listed.read_text())
    missing = [part["name"] for part in about["parts"] if not (listed.parent / part["name"]).exists()]
    if missing:
        sys.exit(f"not in {listed.parent}: {', '.join(missing)}")
    whole = hashlib.sha256()
    # All parts are checked before anything is written, so that a bad one leaves nothing behind.
    for part in about["parts"]:
        content = (listed.parent / part["name"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != part["sha256"]:
            sys.exit(f"{listed.parent / part['name']} is not what {listed.name} lists; copy it again")
        whole.update(content)
    if whole.hexdigest() != about["sha256"]:
        sys.exit(f"{listed}: the parts do not make up {about['name']}")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, ((listed.parent / part["name"]).read_bytes() for part in about["parts"]))
    return whole.hexdigest()


@click.group(help=__doc__.splitlines()[0])
def main() -> None:
    pass


@main.command("split")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of the parts.")
@click.option("--megabytes", type=float, default=MEGABYTES, show_default=True, help="Most of a part, in 10^6 bytes.")
def split_command(file: Path, output: Path, megabytes: float) -> None:
    """Split FILE into parts of one size."""
    if megabytes <= 0:
        raise click.BadParameter("more than 0 is needed", param_hint="--megabytes")
    print(split(file, output, most_bytes=max(1, int(megabytes * 1e6))))


@main.command("join")
@click.argument("listed", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def join_command(listed: Path, output: Path) -> None:
    """Check the parts that the file LISTED names, and join them."""
    print(f"{join(listed, output)}  {output}")


if __name__ == "__main__":
    main()
