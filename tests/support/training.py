"""Settings of a short training, and the command that uses them."""

from __future__ import annotations

from pathlib import Path

CONFIG = "batch_tokens: 512\nlearning_rate: 0.001\nwarmup_steps: 2\nsave_every: 2\nweight_decay: 0.1\n"


def settings_of(model: Path, rows: str, config: Path, output: Path, *more: str) -> tuple[str, ...]:
    return ("train", "--model", str(model), "--rows", rows, "--config", str(config), "--output", str(output),
            "--tokens", "3_500", *more)  # fmt: skip
