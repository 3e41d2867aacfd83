"""The bench of the paper's Table 5 on a tiny model: strides of its own, correlations and seconds of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from support.paths import ROOT

SCRIPT = ROOT / "scripts" / "bench" / "table5.py"
sys.path.append(str(SCRIPT.parent))

import table5  # noqa: E402

from ladm.runs.columns.sink_layers import first_after_sinks  # noqa: E402


@pytest.mark.slow
def test_strides_are_compared_on_intact_rows(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ids = np.random.default_rng(0).integers(0, 256, (6, 512)).tolist()
    kinds = ["intact"] * 5 + ["shuffled"]
    Dataset.from_dict({"input_ids": ids, "kind": kinds}).save_to_disk(str(tmp_path / "rows"))
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    command = [sys.executable, str(SCRIPT), str(tmp_path / "rows"), "--model", str(tmp_path / "model")]
    subprocess.run([*command, "--output", str(tmp_path / "table.json")], check=True, capture_output=True)
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["documents"] == 5
    assert set(found["table"]) == set(table5.STRIDES)
    assert found["table"]["default"]["robust"]["pearson"] == pytest.approx(1)
    for strides in ("d_afs 2", "d_cds 2", "both 2"):
        released = found["table"][strides]["released"]
        assert released["low"] <= released["pearson"] <= released["high"]
        assert abs(released["pearson"]) < 0.9999


def test_clean_layers_follow_the_last_sink() -> None:
    sinks = np.array([[0.1, 0.9, 0.2, 0.1], [0.2, 0.7, 0.6, 0.3], [0.1, 0.8, 0.3, 0.2]])
    assert first_after_sinks(np.median(sinks, axis=0)) == 2
    assert first_after_sinks([0.1]) == 0
    # Where the last layer has sinks nothing would be left, so all layers count.
    assert first_after_sinks([0.1, 0.9]) == 0
