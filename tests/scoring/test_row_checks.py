"""What `ladm score` finds out about rows and a model before the model loads: in full, and nothing is written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.corpus.rows.reading import open_rows
from ladm.errors import StorageError
from ladm.modeling.facts import model_facts
from ladm.modeling.model_files import hub_name, model_folder, model_identity
from support.models import SMALL, model
from support.paths import GOLDEN
from support.rows import topical_rows

NO_SPAN = SMALL[:-2]


def last(result: Any) -> str:
    line: str = result.stderr.splitlines()[-1]
    return line


def test_the_default_span_follows_the_commonest_length(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [512, 700, 512]))
    result = ladm("score", rows, *NO_SPAN, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "\nspans     2 tokens: 1/256 of the commonest length, 512 tokens\n" in result.stderr
    assert (
        "\nlengths   512 to 700 tokens, 2 rows have 512; scores can be compared only between rows of the same length\n"
    ) in result.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["span_tokens"] == 2


def test_rows_too_short_for_any_span_are_refused_with_the_span_that_works(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = save_rows(topical_rows(golden, [512, 512]))
    result = ladm("score", rows, *NO_SPAN, "--span-tokens", "128", "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert last(result) == (
        "ladm: rows of 512 tokens have no span to score with spans of 128 tokens; give --span-tokens 2, or longer rows"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (("--n0", "500"), "give a smaller --n0 than 500, or longer rows"),
        (("--m", "400"), "give a smaller --m than 400, or longer rows"),
        (("--n", "600", "--n0", "3"), "give a smaller --n than 600, or longer rows"),
        (("--d-afs", "512"), "give a smaller --d-afs than 512, or longer rows"),
        (("--m", "600", "--n0", "600"), "make longer rows (--length of ladm prepare)"),
    ],
)
def test_the_setting_that_leaves_no_span_is_named(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path, flags: tuple[str, ...], remedy: str
) -> None:
    rows = save_rows(topical_rows(golden, [512, 512]))
    result = ladm("score", rows, *NO_SPAN, "--span-tokens", "2", *flags, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert last(result) == f"ladm: rows of 512 tokens have no span to score with spans of 2 tokens; {remedy}"


def test_some_rows_without_a_score_are_counted(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [100, 512, 512]))
    result = ladm("score", rows, *SMALL, "--output", tmp_path / "run")
    assert "\nwarning   1 of 3 rows will have no score: too_short 1\n" in result.stderr


def test_rows_longer_than_the_positions_are_refused(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows, small = (
        save_rows(topical_rows(golden, [512, 600])),
        model(tmp_path / "m", "llama", max_position_embeddings=256),
    )
    result = ladm("score", rows, *SMALL, "--model", small, "--output", tmp_path / "run")
    assert last(result) == (
        f"ladm: every row is longer than the 256 positions of {small} (the shortest has 512 tokens); make shorter "
        "rows (--length 256 of ladm prepare), or use another model"
    )


@pytest.mark.parametrize("rope", ["yarn", "linear", "dynamic"])
def test_positions_count_as_scaled(rope: str, tmp_path: Path) -> None:
    scaling = {"rope_type": rope, "factor": 4.0, "original_max_position_embeddings": 256}
    edit = {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": scaling}
    made = model(tmp_path / "m", "llama", max_position_embeddings=256, edit=edit)
    assert model_facts(str(made)).max_tokens == 1024


def test_a_window_that_never_closes_is_none(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """A window as long as the rows hides nothing of them; one that is shorter does."""
    open_window = model(tmp_path / "open", "mistral", sliding_window=512)
    result = ladm(
        "score",
        save_rows(topical_rows(golden, [512, 512])),
        *SMALL,
        "--model",
        open_window,
        "--output",
        tmp_path / "run",
    )
    assert result.exit_code == 0, result.output
    longer = save_rows(topical_rows(golden, [513, 512]), "longer")
    result = ladm("score", longer, *SMALL, "--model", open_window, "--output", tmp_path / "run2")
    assert last(result) == (
        f"ladm: {open_window}: layers 0-2 of this mistral model see only a window, which the focus score does not "
        "model; use another model"
    )


def test_padding_and_packed_rows_are_reported(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [512, 512])
    for row in rows:
        row["attention_mask"] = [1] * 500 + [0] * 12
        row["position_ids"] = [*range(300), *range(212)]
    result = ladm("score", save_rows(rows), *SMALL, "--output", tmp_path / "run")
    assert (
        "\nwarning   padding: attention_mask has zeros in 2 of the 2 rows looked at, and padding is " in result.stderr
    )
    assert "\nwarning   packed rows: the column position_ids shows several documents in one row, " in result.stderr
    # Columns of other people that have these names.
    odd = [row | {"attention_mask": "all", "position_ids": 1} for row in rows]
    result = ladm("score", save_rows(odd, "odd"), *SMALL, "--output", tmp_path / "odd-run")
    assert (result.exit_code, "warning" in result.stderr) == (0, False)


def test_rows_of_another_tokenizer_are_refused(ladm: Any, talking: Path, tmp_path: Path) -> None:
    documents, other = tmp_path / "d.jsonl", tmp_path / "other"
    text = " ".join(f"w{k % 300}" for k in range(600))
    documents.write_text(json.dumps({"text": text, "meta": {"pile_set_name": "A"}}) + "\n")
    other.mkdir()
    for path in talking.iterdir():
        (other / path.name).write_bytes(path.read_bytes().replace(b'"w299"', b'"v299"'))
    rows = tmp_path / "rows"
    assert ladm("prepare", documents, "--tokenizer", talking, "--length", "512", "-o", rows).exit_code == 0
    command = ("score", rows, *SMALL, "--model", other, "--output", tmp_path / "run")
    result = ladm(*command)
    assert result.exit_code == 2
    assert last(result) == (
        f"ladm: {rows} was made with the tokenizer of {talking}, which is not that of {other}; prepare the rows with "
        f"--tokenizer {other}, or, where both make the same ids, give --allow-other-tokenizer"
    )
    assert ladm(*command, "--allow-other-tokenizer").exit_code == 0


def test_models_that_cannot_be_used_have_a_line_each(ladm: Any, short_rows: str, tmp_path: Path) -> None:
    t = tmp_path
    pointer, adapter = model(t / "pointer", "llama"), model(t / "adapter", "llama")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n")
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_x.X"}}
    for made, message in [
        (pointer, "model.safetensors is a Git LFS pointer, not the file itself; run git lfs pull there"),
        (
            adapter,
            "this is an adapter of org/base, not a whole model; merge it into its base model and save that "
            "(merge_and_unload and save_pretrained of peft)",
        ),
        (
            model(t / "code", "llama", edit=code),
            "this model needs its own code (auto_map in config.json), which ladm never runs; use a model type that "
            "transformers has built in",
        ),
        (
            model(t / "sizes", "llama", edit={"vocab_size": 600}),
            "the safetensors do not match config.json: embed_tokens.weight is 512 x 32 there, but 600 x 32 by the "
            "configuration",
        ),
        (
            model(t / "neo", "gpt_neo", num_layers=3, attention_types=[[["global"], 3]], num_heads=2),
            "gpt_neo computes attention itself, not through transformers' attention interface; use another model",
        ),
        (
            model(t / "conv", "lfm2", layer_types=["conv", "full_attention", "conv"]),
            "layers 0,2 of this lfm2 model have conv in place of the softmax attention that the focus score is "
            "made of; leave such layers out: --layers 1",
        ),
    ]:
        result = ladm("score", short_rows, *SMALL, "--model", made, "--output", t / "run")
        assert (result.exit_code, last(result)) == (1, f"ladm: {made}: {message}")


def test_a_task_of_an_array_learns_what_to_unset(
    ladm: Any, short_rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    result = ladm("score", short_rows, *SMALL, "--overwrite", "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert last(result) == (
        "ladm: --overwrite and --retry-errors are for a run that no other launch shares; to run alone, unset "
        "SLURM_ARRAY_TASK_ID"
    )


def test_weights_that_cannot_be_read_are_an_error_of_ours(tmp_path: Path) -> None:
    """From Python too, where every error is a `LadmError`; a folder of that name stands for any file like it."""
    folder = model(tmp_path / "model", "llama")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").mkdir()
    for read in (model_folder, model_identity):
        with pytest.raises(StorageError) as caught:
            read(str(folder))
        assert str(caught.value) == f"cannot read {folder / 'b.safetensors'}: Is a directory"


def test_a_hub_id_may_have_a_revision() -> None:
    assert hub_name("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
    assert hub_name("name@v1.0") == ("name", "v1.0")
    assert hub_name("org/name") == ("org/name", None)
    assert model_facts(str(GOLDEN)).window is None


def test_a_dry_run_times_three_rows_and_writes_nothing(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = save_rows(topical_rows(golden, [100, 512, 700, 512]))
    before = sorted(tmp_path.rglob("*"))
    result = ladm("score", rows, *SMALL, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stderr.endswith(f"\nnext: ladm score {rows} {shlex.join(SMALL)} -o run\n")
    assert "            512            2\n" in result.stdout
    assert "no score: too_short 1\na row of 512 tokens: " in result.stdout
    for words in (
        "a row of 700 tokens: ",
        "hours on 1 device: ",
        "hours on 8 devices: ",
        "memory: ",
        "results: about ",
    ):
        assert words in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_prepared_rows_with_a_flipped_bit_are_refused(ladm: Any, talking: Path, tmp_path: Path) -> None:
    documents, rows = tmp_path / "d.jsonl", tmp_path / "rows"
    text = " ".join(f"w{k % 300}" for k in range(600))
    documents.write_text(json.dumps({"text": text, "meta": {"pile_set_name": "A"}}) + "\n")
    assert ladm("prepare", documents, "--tokenizer", talking, "--length", "512", "-o", rows).exit_code == 0
    (path,) = (rows / "train").glob("*.arrow")
    whole, ids = path.read_bytes(), np.array(open_rows(str(rows)).read(0, 1)[0].raw_ids)
    # The last id of the row, which stays one of the vocabulary.
    at = next(
        whole.find(kind.tobytes()) + kind.nbytes
        for kind in (ids.astype("<i4"), ids.astype("<i8"))
        if kind.tobytes() in whole
    )
    at -= 4 if ids.astype("<i4").tobytes() in whole else 8
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    small = ("--model", talking, *SMALL[2:], "-o", tmp_path / "run")
    result = ladm("score", rows, *small)
    assert (result.exit_code, last(result)) == (
        74,
        f"ladm: {rows} is damaged or was changed since ladm prepare wrote it; remove it and prepare it again, or copy "
        "it without prepare.json if it was changed on purpose",
    )
    record = json.loads((rows / "prepare.json").read_text())
    del record["xxh3_128"], record["crc32"]
    (rows / "prepare.json").write_text(json.dumps(record))
    assert ladm("score", rows, *small).exit_code == 0


def test_a_flipped_bit_in_a_text_does_not_get_into_a_subset(ladm: Any, talking: Path, tmp_path: Path) -> None:
    documents, rows, run = tmp_path / "d.jsonl", tmp_path / "rows", tmp_path / "run"
    text = " ".join(f"w{k % 300}" for k in range(600))
    documents.write_text(json.dumps({"text": text, "meta": {"pile_set_name": "A"}}) + "\n")
    assert ladm("prepare", documents, "--tokenizer", talking, "--length", "512", "-o", rows).exit_code == 0
    assert ladm("score", rows, "--model", talking, *SMALL[2:], "-o", run).exit_code == 0
    (path,) = (rows / "train").glob("*.arrow")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"w17 w18", b"w17 w19", 1))
    result = ladm("select", run, "--top", "100%", "-o", tmp_path / "subset")
    assert (result.exit_code, last(result)) == (
        74,
        f"ladm: {rows} is damaged or was changed since ladm prepare wrote it; remove it and prepare it again, or copy "
        "it without prepare.json if it was changed on purpose",
    )
    assert not (tmp_path / "subset").exists()
    assert ladm("verify", run, "--deep").exit_code == 74
    # Rows of an earlier version say nothing of their texts.
    record = json.loads((rows / "prepare.json").read_text())
    del record["columns_xxh3_128"], record["crc32"]
    (rows / "prepare.json").write_text(json.dumps(record))
    assert ladm("select", run, "--top", "100%", "-o", tmp_path / "subset").exit_code == 0


def test_swapped_arguments_are_recognised(ladm: Any, score_once: Any, short_rows: str, tmp_path: Path) -> None:
    run, documents, job = tmp_path / "run", tmp_path / "d.jsonl", tmp_path / "job"
    (job / "rows").mkdir(parents=True)
    (job / "job.yaml").write_text("model: m\n")
    documents.write_text('{"text": "a"}\n')
    ids = tmp_path / "ids" / "a.parquet"
    ids.parent.mkdir()
    pq.write_table(pa.table({"input_ids": [[1, 2, 3]]}), ids)
    score_once(short_rows, output=run)
    for command, message in [
        (
            ("score", run, *SMALL, "--output", tmp_path / "run2"),
            f"{run} is a run of ladm score, not rows; give the rows that it scored ({short_rows}), or use the run "
            f"itself: ladm rescore {run} makes another score of it, ladm select {run} chooses its best documents",
        ),
        (
            ("select", short_rows, "--rows", short_rows, "--tokens", "1", "--output", tmp_path / "s"),
            f"{short_rows} holds rows, not a run; score them first: ladm score {short_rows} --model MODEL -o run",
        ),
        (
            ("score", documents, *SMALL, "--output", tmp_path / "run2"),
            f"{documents} holds documents, not rows of token ids; make rows of them first: ladm prepare {documents} "
            "--tokenizer MODEL -o rows",
        ),
        (
            ("score", ids, *SMALL, "--output", tmp_path / "run2"),
            f"{ids} has token ids, but rows are read from a folder saved by the datasets library; make one in Python: "
            f"load_dataset('parquet', data_files='{ids}').save_to_disk('rows')",
        ),
        (
            ("score", ids.parent, *SMALL, "--output", tmp_path / "run2"),
            f"{ids} has token ids, but rows are read from a folder saved by the datasets library; make one in Python: "
            f"load_dataset('parquet', data_files='{ids.parent}/*.parquet').save_to_disk('rows')",
        ),
        (
            ("score", GOLDEN, "--model", short_rows, "--output", tmp_path / "run2"),
            f"{GOLDEN} is a model, not rows; the two arguments are swapped: ladm score {short_rows} --model {GOLDEN} "
            "-o run",
        ),
        (
            ("score", GOLDEN, "--model", GOLDEN, "--output", tmp_path / "run2"),
            f"{GOLDEN} is a model, not rows; give rows as well: ladm score ROWS --model {GOLDEN} -o run",
        ),
        (
            ("calibrate", "--rows", GOLDEN, "--model", short_rows, "--output", tmp_path / "profile.yaml"),
            f"{GOLDEN} is a model, not rows; the two arguments are swapped: ladm calibrate --rows {short_rows} --model "
            f"{GOLDEN} -o profile.yaml",
        ),
        (
            ("prepare", run, "--tokenizer", GOLDEN, "--length", "40", "--output", tmp_path / "rows2"),
            f"{run} is a run of ladm score, not documents; choose its best documents with: ladm select {run} "
            "--tokens N -o subset",
        ),
        (
            ("prepare", job, "--tokenizer", GOLDEN, "--length", "40", "--output", tmp_path / "rows2"),
            f"{job} is a job of ladm run, not documents; choose other documents of it with: ladm select {job} "
            "--tokens N -o subset",
        ),
    ]:
        result = ladm(*command)
        assert (result.exit_code, last(result)) == (2, f"ladm: {message}")


def test_a_subset_without_texts_cannot_be_prepared(ladm: Any, score_once: Any, short_rows: str, tmp_path: Path) -> None:
    run, subset = tmp_path / "run", tmp_path / "subset"
    score_once(short_rows, output=run)
    assert ladm("select", run, "--documents", "2", "--format", "megatron", "--output", subset).exit_code == 0
    result = ladm("prepare", subset, "--tokenizer", GOLDEN, "--length", "40", "--output", tmp_path / "rows2")
    assert (result.exit_code, last(result)) == (
        2,
        f"ladm: {subset} is a subset in the format megatron, which has no texts; write one that has them: ladm select "
        "RUN --tokens N --format parquet -o SUBSET",
    )
    assert not (tmp_path / "rows2").exists()
