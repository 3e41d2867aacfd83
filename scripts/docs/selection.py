"""Writes the outputs in docs/selection.md again: python scripts/docs/selection.py FOLDER

FOLDER gets the model, the rows and the run of the page's first commands, where it does not have them yet; scoring takes
some minutes of a CPU.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "selection.md"
FIRST_COMMANDS = re.compile(r"^```bash\n(.*?)```", re.DOTALL | re.MULTILINE)
EXAMPLE = re.compile(r"^```console\n(.*?)```", re.DOTALL | re.MULTILINE)


def run(command: str, folder: Path) -> str:
    """What a command prints: its result, or where it is refused the reason."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, text=True, capture_output=True, check=False
    )
    text = done.stdout if done.returncode == 0 else done.stderr
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def with_outputs(example: re.Match[str], folder: Path) -> str:
    """The commands of one example, each followed by what it prints."""
    commands = [line for line in example[1].splitlines() if line.startswith("$ ladm ")]
    shown = [f"{command}\n{run(command.removeprefix('$ '), folder)}" for command in commands]
    return "```console\n" + "\n\n".join(shown) + "\n```"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    page = PAGE.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("scripts", "ladm"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    first = FIRST_COMMANDS.search(page)
    if first is None:
        sys.exit(f"{PAGE} does not begin with the commands that make its run")
    for command, made in zip(first[1].strip().splitlines(), ("model", "rows", "run/scores.parquet"), strict=True):
        if not (folder / made).exists():
            subprocess.run(command, shell=True, cwd=folder, check=True)
    shutil.rmtree(folder / "subset", ignore_errors=True)
    PAGE.write_text(EXAMPLE.sub(lambda example: with_outputs(example, folder), page), encoding="utf-8")


if __name__ == "__main__":
    main()
