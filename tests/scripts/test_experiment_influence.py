"""The influence experiment on tiny inputs: classes, gradients against plain ones, statistics with a known answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from support.paths import ROOT

SCRIPTS = ROOT / "scripts" / "experiment" / "influence"
sys.path += [str(SCRIPTS), str(SCRIPTS.parent)]

import gradients  # noqa: E402
import judge  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import tables  # noqa: E402


def test_a_token_is_copyable_when_its_trigram_stood_far_enough_before() -> None:
    ids = np.array([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3])
    assert np.flatnonzero(judge.copyable(ids, back=4)).tolist() == [6, 10]
    assert np.flatnonzero(judge.copyable(ids, back=5)).tolist() == [10]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 512, (8, 256)).astype(np.uint16)
    held_out = np.array([False] * 6 + [True] * 2)
    classes = np.zeros((2, 256), dtype=np.uint8)
    classes[:, 128:] = draw.integers(1, 4, (2, 128))
    np.savez(folder / "pack.npz", ids=ids, held_out=held_out)
    judge.save_classes(folder / "classes.npz", classes, np.array([True, True]))
    rows = [
        {"id": str(k), "package": f"p{k % 3}", "kind": "k", "domain": f"d{k % 2}", "fault_kind": None,
         "split": "held_out" if k >= 6 else "pool", "gzip_ratio": 0.1 * k}
        for k in range(8)
    ]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    config = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder


def measured(folder: Path, *more: str) -> list[dict[str, Any]]:
    command = [sys.executable, SCRIPTS / "measure.py", folder, "--model", folder / "model", *more]
    subprocess.run(command, check=True, capture_output=True)
    return tables.read_rows(folder)


@pytest.mark.slow
def test_influence_is_the_preconditioned_inner_product(pack: Path) -> None:
    from transformers import AutoModelForCausalLM

    rows = measured(pack)
    assert [row["id"] for row in rows] == [str(k) for k in range(6)]
    model = AutoModelForCausalLM.from_pretrained(pack / "model", dtype=torch.float32).eval()
    content = np.load(pack / "pack.npz")
    ids = torch.from_numpy(content["ids"].astype(np.int64))

    def flat(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    def losses(row: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=row[None]).logits[0, :-1]
        return torch.nn.functional.cross_entropy(logits, row[1:], reduction="none")

    v = torch.stack([flat(losses(row).mean()).square() for row in ids[:6]]).mean(0)
    # Damped by the root mean square gradient of each parameter.
    sizes = [parameter.numel() for parameter in model.parameters()]
    p = torch.cat([1 / (part.sqrt() + part.mean().sqrt()) for part in v.split(sizes)])
    at = torch.from_numpy(np.load(pack / "classes.npz")["classes"]) == 1
    held = torch.stack([losses(row) for row in ids[6:]])
    g_c = flat(held[at[:, 1:]].mean())
    g = flat(losses(ids[2]).mean())
    expected = (p * g_c) @ g / (p * g * g).sum().sqrt()
    assert rows[2]["u_D"] == pytest.approx(expected.item(), rel=1e-3)
    assert rows[2]["loss"] == pytest.approx(losses(ids[2]).mean().item(), rel=1e-5)


@pytest.mark.slow
def test_prolong_and_longattn_are_measured_too(pack: Path) -> None:
    from transformers import AutoModelForCausalLM

    measured(pack)
    rows = measured(pack, "--parts", "prolong")
    assert {"longattn_ds", "longattn_v", "prolong", "prolong_per_pair"} <= set(rows[0])
    assert rows[0]["prolong_pairs"] == 1
    model = AutoModelForCausalLM.from_pretrained(pack / "model", dtype=torch.float32).eval()
    ids = np.random.default_rng(1).integers(0, 512, (40, 256))
    found = measure.segment_perplexities(model, ids)
    inputs = torch.from_numpy(ids[35:36])
    logits = model(input_ids=inputs).logits[0, 128:-1]
    expected = torch.nn.functional.cross_entropy(logits, inputs[0, 129:]).exp().item()
    assert found.shape == (40,)
    assert found[35] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_stopped_measurement_continues_behind_its_last_whole_line(pack: Path) -> None:
    path = pack / "influence.jsonl"
    whole = measured(pack)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    again = measured(pack)
    assert [row["id"] for row in again] == [row["id"] for row in whole]
    assert again[4]["u_D"] == pytest.approx(whole[4]["u_D"], rel=1e-4)


def test_stopped_among_the_held_out_rows_the_gradients_are_the_same(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(pack / "model", dtype=torch.float32).eval()
    ids = torch.from_numpy(np.load(pack / "pack.npz")["ids"].astype(np.int64))
    classes = torch.from_numpy(np.load(pack / "classes.npz")["classes"])
    whole = gradients.Influence(model, ids[:6], ids[6:], classes, state=None).of(ids[2])
    save = gradients._save

    def stop_after_the_first_row(saved: dict[str, Any], state: Path) -> None:
        save(saved, state)
        if saved["rows"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(gradients, "SAVE_ROWS", 1)
    monkeypatch.setattr(gradients, "_save", stop_after_the_first_row)
    with pytest.raises(KeyboardInterrupt):
        gradients.Influence(model, ids[:6], ids[6:], classes, state=tmp_path / "state.pt")
    resumed = gradients.Influence(model, ids[:6], ids[6:], classes, state=tmp_path / "state.pt").of(ids[2])
    assert resumed == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_products_in_bfloat16_and_what_is_taken_over_from_a_table(pack: Path, tmp_path: Path) -> None:
    exact = measured(pack)
    # What a row in the middle lacks is measured.
    incomplete = [row | ({"gain": None} if k == 2 else {}) for k, row in enumerate(exact)]
    tables.pq.write_table(tables.as_table(incomplete), tmp_path / "rows.parquet")
    other = tmp_path / "other"
    shutil.copytree(pack, other, ignore=shutil.ignore_patterns("*.jsonl", "*.pt"))
    rounded = measured(other, "--products", "bfloat16", "--continue-from", str(tmp_path))
    assert {row["products"] for row in exact} == {"float32"}
    assert {row["products"] for row in rounded} == {"bfloat16"}
    assert rounded[2]["u_D"] == pytest.approx(exact[2]["u_D"], rel=0.1)
    assert [row["gain"] for row in rounded] == pytest.approx([row["gain"] for row in exact], rel=1e-3)
    lines = (other / "gain.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "1", "3", "4", "5", "2"]
    assert rounded[3]["cds"] == pytest.approx(exact[3]["cds"], rel=1e-6)
    again = tmp_path / "again"
    shutil.copytree(pack, again, ignore=shutil.ignore_patterns("*.jsonl", "*.pt"))
    assert [row["u_D"] for row in measured(again, "--continue-from", str(tmp_path))] == [row["u_D"] for row in exact]


@pytest.mark.slow
def test_a_score_that_is_the_influence_is_found_and_a_random_one_is_not() -> None:
    draw = np.random.default_rng(5)
    layers = {"cds": 3, "cds_no_std": 3, "value_cds": 3, "value_cds_no_std": 3, "copy_share": 3}
    rows = []
    for k in range(240):
        u = draw.normal()
        row: dict[str, Any] = {
            "package": f"p{k % 24}", "domain": f"d{k % 6}", "split": "fault" if k % 5 == 0 else "pool", "u_D": u,
            "unseen": k % 7, "of_adam": k % 12 == 0,
            "u_S": draw.normal(), "u_C": draw.normal(), "gain": u + 0.3 * draw.normal(), "sink_mass": [0.7, 0.2, 0.1],
        }  # fmt: skip
        row |= {name: draw.random(width).tolist() for name, width in layers.items()}
        names = (
            "gain_positive longfilter key_tokens gain_no_copy gzip_ratio far_rare unigram_entropy repeated_4grams "
            "repeated_13grams characters_per_token characters digits loss bigram longattn_ds longattn_v"
        )
        row |= {name: draw.random() for name in names.split()}
        # Repetition goes with the influence, and the loss is repetition alone.
        row["repeated_4grams"] = u + draw.normal()
        rows.append(row | {"loss": row["repeated_4grams"] + 0.3 * draw.normal()})
    results, page = report.report(rows)
    found = results["rows with every score"]
    assert found["rows"] == 220
    gain, random = found["columns"]["gain"], found["columns"]["random"]
    assert gain["partial"] > 0.8
    assert gain["interval"][0] > 0.7
    assert gain["p"] < 0.01
    assert abs(random["partial"]) < 0.25
    assert random["interval"][1] < gain["interval"][0]
    assert random["p"] > 0.005
    assert 0.05 < found["detectable"] < 0.4
    assert gain["p_holm"] < 0.01
    assert gain["given_unseen"]["partial"] > 0.8
    assert gain["given_text"]["partial"] > 0.8
    assert found["columns"]["loss"]["partial"] > 0.4
    assert abs(found["columns"]["loss"]["given_text"]["partial"]) < 0.25
    assert "given_text" not in found["columns"]["repeated_4grams"]
    assert found["null"]["p below .05"] < 0.12
    assert "| gain |" in page
    # What is regressed out has nothing left to correlate.
    assert set(found["columns"]["gzip_ratio"]) == {"spearman"}
    assert "| a control |" in page
    assert set(results) == {"rows with every score", "rows with every score and no fault", "preconditioner", "products"}


@pytest.mark.slow
def test_a_table_has_the_rows_that_lack_a_part_too(pack: Path) -> None:
    whole = measured(pack)
    (pack / "columns.jsonl").write_text(json.dumps({"id": "0", "cds": [0.1, 0.2]}) + "\n")
    table = tables.as_table(tables.read_rows(pack))
    assert table["cds"].null_count == len(whole) - 1
    # v is computed from up to 40 rows, hence here from all six.
    assert table["of_adam"].to_pylist() == [True] * 6
    assert table["unseen"].to_pylist() == [0] * 6
    (pack / "columns.jsonl").unlink()


def test_rows_with_a_fault_do_not_widen_the_band() -> None:
    scores = np.array([*range(1, 21), 30.0])
    assert report.in_band(scores, of=scores[:20]).tolist() == [*range(1, 20), 0, 0]
    assert report.in_band(scores).tolist() == [*range(1, 21), 0]


def test_the_bigram_table_of_a_row_knows_its_own_pairs() -> None:
    rows = np.array([[1, 2, 1, 2, 1, 2], [3, 4, 5, 6, 3, 4]])
    held_out = np.array([[0, 1, 2]])
    dependent = np.array([[False, False, True]])
    known, unknown = measure.row_bigram_losses(rows, held_out, dependent)
    assert known < unknown
