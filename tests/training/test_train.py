"""`ladm train`: the same losses as a plain loop, the same bits after a stop, and its faults in full."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from ladm.errors import LadmError
from ladm.settings.training import TrainSettings
from ladm.training import folder as folder_module
from ladm.training import plan as plan_module
from ladm.training.checkpoints import newest_checkpoint
from ladm.training.trainer import LossPrinter
from support.files import read_lines
from support.paths import GOLDEN, TESTS
from support.rows import topical_rows
from support.training import CONFIG, settings_of

pytest.importorskip("accelerate")

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def trained(golden_lm: Path, rows: str, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training, which no test changes."""
    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("trained") / "out"
    assert CliRunner().invoke(main, settings_of(golden_lm, rows, config, folder)).exit_code == 0
    return folder


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_what_is_printed_and_written(ladm: Command, golden_lm: Path, rows: str, config: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for path in golden_lm.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    config_of_model = json.loads((golden_lm / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config_of_model | {"max_position_embeddings": 256}))
    arguments = ["train", "--model", tmp_path / "model", *settings_of(golden_lm, rows, config, tmp_path / "out")[3:]]
    result = ladm(*arguments, "--length", "300", "--output", tmp_path / "long")
    assert result.exit_code == 0
    assert "1 of at least 300 tokens, cut to that; 10 shorter ones left out" in result.stderr
    assert json.loads((tmp_path / "long" / "config.json").read_text())["max_position_embeddings"] == 300
    result = ladm(*arguments, "--rope-base", "500000")
    assert result.exit_code == 0, result.output
    printed = result.stderr.splitlines()
    assert printed[0] == f"rows      {rows}: 10 of at least 128 tokens, cut to that; 1 shorter ones left out"
    assert printed[1] == f"model     {tmp_path / 'model'}: RoPE base 500,000"
    assert printed[2] == "batch     4 rows, 512 tokens: 1 at once on each of 1, 4 times"
    assert printed[3] == "budget    6 steps, 3,072 tokens of a budget of 3,500"
    assert printed[4] == "optimiser AdamW, rate 0.001, linear after 2 steps of warm-up; in float32, attention sdpa"
    assert printed[5].startswith("memory    about 0.0 GiB on a device: weights 0.0, gradients")
    assert printed[7] == "warning   the budget is 2.4 times the rows, which will be repeated"
    assert printed[8].startswith("step 1 of 6: loss ")
    out = tmp_path / "out"
    saved = json.loads((out / "config.json").read_text())
    assert saved["rope_parameters"]["rope_theta"] == 500_000
    assert saved["use_cache"]
    assert (out / "tokenizer.json").read_text() == "{}"
    losses = read_lines(out / "losses.jsonl")
    assert [line["step"] for line in losses] == [1, 2, 3, 4, 5, 6]
    assert result.stdout.splitlines() == [
        f"6 steps: loss {losses[0]['loss']:.4f} at the first, {losses[-1]['loss']:.4f} at the last",
        f"model: {out}",
    ]
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["checkpoint-4", "checkpoint-6"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = ladm(*arguments, "--rope-base", "500000")
    assert f"{out} is finished already" in again.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@contextlib.contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """Stop trainings as Ctrl-C does, when they report that step."""

    def stop(_self: Any, _args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossPrinter, "on_log", stop)
        yield


@pytest.mark.parametrize("torn", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_stop_changes_no_bit(
    ladm: Command, golden_lm: Path, rows: str, config: Path, trained: Path, tmp_path: Path, torn: bool
) -> None:
    out = tmp_path / "stopped"
    with stopping_at(5):
        assert ladm(*settings_of(golden_lm, rows, config, out)).exit_code == 130
    assert not (out / "losses.jsonl").exists()
    if torn:
        (out / "checkpoint-4" / "whole").unlink()
    assert newest_checkpoint(out) == out / f"checkpoint-{2 if torn else 4}"
    result = ladm(*settings_of(golden_lm, rows, config, out))
    assert result.exit_code == 0, result.output
    assert f"step {3 if torn else 5} of 6" in result.stderr
    whole, resumed = weights(trained), weights(out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (out / "losses.jsonl").read_bytes() == (trained / "losses.jsonl").read_bytes()


@pytest.mark.slow
def test_a_full_disk_is_reported_and_stops_no_resume(
    ladm: Command, golden_lm: Path, rows: str, config: Path, tmp_path: Path
) -> None:
    size = (golden_lm / "model.safetensors").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = settings_of(golden_lm, rows, config, tmp_path / "out")
    # The weights do not fit, and then those do, but not the optimiser's states, which are twice their size.
    for most, what in ((size // 2, "Error while serializing: "), (size * 3 // 2, "[enforce fail at ")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            result = ladm(*words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        line = result.stderr.splitlines()[-1]
        assert line.startswith(f"ladm: cannot write {tmp_path}/out/checkpoint-2: {what}"), result.stderr
        assert (result.exit_code, line.endswith("; is the disk full?")) == (74, True), line
    assert newest_checkpoint(tmp_path / "out") is None
    assert ladm(*words).exit_code == 0


def test_a_resume_refuses_a_damaged_checkpoint(
    ladm: Command, golden_lm: Path, rows: str, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    with stopping_at(3):
        assert ladm(*settings_of(golden_lm, rows, config, out)).exit_code == 130
    paths = sorted(path for path in (out / "checkpoint-2").iterdir() if path.is_file())
    assert {"optimizer.pt", "model.safetensors", "rng_state.pth", "whole"} <= {path.name for path in paths}
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
        result = ladm(*settings_of(golden_lm, rows, config, out))
        assert (result.exit_code, str(path) in result.stderr) == (74, True), result.output
        path.write_bytes(whole)
    paths[0].unlink()
    assert ladm(*settings_of(golden_lm, rows, config, out)).exit_code == 74
    shutil.rmtree(out / "checkpoint-2")
    assert ladm(*settings_of(golden_lm, rows, config, out)).exit_code == 0


def test_damaged_losses_of_a_finished_training_are_refused_and_made_again(
    ladm: Command, golden_lm: Path, rows: str, config: Path, trained: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(trained, tmp_path / "out"))
    path = out / "losses.jsonl"
    whole = path.read_bytes()
    for k in range(0, len(whole), 67):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        result = ladm(*settings_of(golden_lm, rows, config, out))
        assert (result.exit_code, str(path) in result.stderr) == (74, True), result.output
    path.unlink()
    assert ladm(*settings_of(golden_lm, rows, config, out)).exit_code == 0
    assert path.read_bytes() == whole


def test_the_losses_are_those_of_a_plain_loop(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """Four rows in every step, so that their order does not count: AdamW, warm-up and linear descent by hand."""
    rows = save_rows(topical_rows(golden, [128] * 4))
    (tmp_path / "c.yaml").write_text(CONFIG)
    assert ladm(*settings_of(golden_lm, rows, tmp_path / "c.yaml", tmp_path / "out")).exit_code == 0
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(golden_lm, dtype=torch.float32, attn_implementation="eager")
    ids = torch.tensor([row["input_ids"] for row in topical_rows(golden, [128] * 4)])
    decayed = [p for n, p in model.named_parameters() if "norm" not in n]
    plain = [p for n, p in model.named_parameters() if "norm" in n]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
    )  # fmt: skip
    for step, line in enumerate(read_lines(tmp_path / "out" / "losses.jsonl")):
        logits = model(ids).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert line["loss"] == pytest.approx(loss.item(), rel=2e-4)
        rate = 1e-3 * (step / 2 if step < 2 else (6 - step) / 4)
        assert line["learning_rate"] == pytest.approx(rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


@pytest.mark.parametrize("name", ["calculator", pytest.param("target", marks=pytest.mark.slow)])
def test_the_paper_s_settings(ladm: Command, golden_lm: Path, rows: str, name: str, tmp_path: Path) -> None:
    """The files of the repository, with a small model in the place of theirs and a budget below one batch."""
    result = ladm(
        "train", "--config", f"configs/train/{name}.yaml", "--model", golden_lm, "--rows", rows, "--length", "128",
        "--tokens", "1k", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert (
        "batch     7 rows, 896 tokens (of 1,048,576 in the settings): 1 at once on each of 1, 7 times" in result.stderr
    )
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["rope_parameters"]["rope_theta"] == 500_000


def test_kernels_and_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16, FlashAttention and liger's kernels where they are, each of them left out where it is not."""
    import sys
    import types

    patch = types.ModuleType("liger_kernel.transformers.monkey_patch")
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, patch.__name__, patch)
    monkeypatch.setattr(plan_module, "is_liger_kernel_available", lambda: True)
    monkeypatch.setattr(plan_module, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(plan_module, "resolve_dtype", lambda *_: torch.bfloat16)

    def chosen(cuda: bool, **more: Any) -> tuple[bool, str, bool, bool]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        settings = TrainSettings(tokens=1, **more)
        liger = [plan_module.uses_liger(settings, kind) for kind in ("llama", "gpt2")]
        return plan_module.is_half(settings), plan_module.attention_for(half=plan_module.is_half(settings)), *liger

    assert chosen(True) == (True, "flash_attention_2", True, False)
    assert chosen(True, dtype="float32", liger=False) == (False, "sdpa", False, False)
    assert chosen(False) == (False, "sdpa", False, False)
    assert chosen(False, dtype="bfloat16") == (True, "sdpa", False, False)
    monkeypatch.setattr(plan_module, "is_flash_attn_2_available", lambda: False)
    assert chosen(True) == (True, "sdpa", True, False)


def test_bfloat16_on_a_cpu_and_a_budget_with_a_suffix(
    ladm: Command, golden_lm: Path, rows: str, tmp_path: Path
) -> None:
    (tmp_path / "half.yaml").write_text(CONFIG + "dtype: bfloat16\ntokens: 1k\n")
    result = ladm(*settings_of(golden_lm, rows, tmp_path / "half.yaml", tmp_path / "half")[:-2])
    assert result.exit_code == 0, result.output
    assert "tokens of a budget of 1,000" in result.stderr
    assert "of warm-up; in bfloat16, attention sdpa" in result.stderr
    assert weights(tmp_path / "half")["model.embed_tokens.weight"].dtype == torch.float32
    (tmp_path / "half.yaml").write_text("tokens: 1x\n")
    result = ladm(*settings_of(golden_lm, rows, tmp_path / "half.yaml", tmp_path / "half")[:-2])
    message = f"ladm: --config {tmp_path}/half.yaml: tokens: '1x' is not a number of tokens such as 1B, 500M, 250k or "
    assert (result.exit_code, result.stderr) == (2, f"{message}1073741824\n")


@pytest.mark.slow
def test_a_resume_on_another_kind_of_device_keeps_the_precision(
    ladm: Command, golden_lm: Path, rows: str, config: Path, trained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`--dtype auto` is bfloat16 on most GPUs, and float32 elsewhere."""
    words = settings_of(golden_lm, rows, config, Path(shutil.copytree(trained, tmp_path / "out")))
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert record["settings"]["dtype"] == "float32"
    monkeypatch.setattr(plan_module, "is_half", lambda settings: settings.dtype != "float32")
    # One that is finished is only opened.
    assert "is finished already" in ladm(*words).stderr
    (tmp_path / "out" / "losses.jsonl").unlink()
    result = ladm(*words)
    assert result.exit_code == 1
    assert 'settings.dtype: "float32" before, "bfloat16" now' in result.stderr
    assert ladm(*words, "--dtype", "float32").exit_code == 0


def test_rows_that_a_selection_did_not_take_are_reported(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, config: Path, tmp_path: Path
) -> None:
    rows = save_rows([row | {"taken": k == 0} for k, row in enumerate(topical_rows(golden, [128] * 9))], "kept")
    result = ladm(*settings_of(golden_lm, rows, config, tmp_path / "out")[:-1], "512")
    assert result.exit_code == 0, result.output
    message = "warning   the rows have a column taken, as --keep-all writes it: those not taken are used too"
    assert message in result.stderr.splitlines()


def test_models_that_cannot_see_far(ladm: Command, rows: str, config: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

    small = {"vocab_size": 512, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    MistralForCausalLM(
        MistralConfig(**small, num_key_value_heads=1, intermediate_size=32, sliding_window=16)
    ).save_pretrained(tmp_path / "windowed")
    GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=16, n_layer=2, n_head=2, n_positions=64)).save_pretrained(
        tmp_path / "learned"
    )
    result = ladm(*settings_of(tmp_path / "windowed", rows, config, tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "warning   2 layers see only the last 16 tokens, but rows have 128\n" in result.stderr
    result = ladm(*settings_of(tmp_path / "learned", rows, config, tmp_path / "out2"))
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {tmp_path}/learned has only 64 learned positions, not enough for rows of 128 tokens; give a "
        "smaller --length, or a model with RoPE\n",
    )  # fmt: skip
    result = ladm("evaluate", "perplexity", "--model", tmp_path / "learned", "--rows", rows, "--windows", "128")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {tmp_path}/learned has only 64 learned positions, not enough for 128 tokens; request fewer tokens\n",
    )  # fmt: skip
    result = ladm(
        "evaluate", "perplexity", "--model", tmp_path / "learned", "--rows", rows, "--windows", "64", "--documents", "1"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"^ +64 +[\d.]+  -$", result.stdout, re.MULTILINE)


def test_accelerate_knows_every_key_of_the_fsdp_file() -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    loaded = load_config_from_file("configs/train/fsdp.yaml")
    assert (loaded.distributed_type, loaded.mixed_precision) == ("FSDP", "bf16")
    assert set(loaded.fsdp_config) <= {action.dest for action in launch_command_parser()._actions}


@pytest.mark.slow
def test_two_processes_train_as_one(golden_lm: Path, rows: str, config: Path, tmp_path: Path) -> None:
    """The same batch on twice the processes: the same losses, printed and written once."""
    import os
    import subprocess
    import sys

    one, two = ([*settings_of(golden_lm, rows, config, tmp_path / name)] for name in ("one", "two"))
    subprocess.run([sys.executable, "-m", "ladm", *one], check=True, capture_output=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", sys.executable]
    done = subprocess.run(
        [*launcher, "-m", "ladm", *two], check=True, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.count("6 steps: loss ") == 1
    assert "1 at once on each of 2, 2 times" in done.stderr
    ours, theirs = (read_lines(tmp_path / name / "losses.jsonl") for name in ("two", "one"))
    assert [a["loss"] for a in ours] == pytest.approx([b["loss"] for b in theirs], rel=1e-5)


@pytest.mark.slow
def test_devices_that_share_the_states_train_as_one(golden_lm: Path, rows: str, config: Path, tmp_path: Path) -> None:
    """FSDP by the repository's file, on processes of a CPU: the losses and weights of one, also after a stop."""
    import os
    import subprocess
    import sys

    one, two = ([*settings_of(golden_lm, rows, config, tmp_path / name)] for name in ("one", "two"))
    subprocess.run([sys.executable, "-m", "ladm", *one], check=True, capture_output=True)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/train/fsdp.yaml"]

    # The program is a helper of the tests, which their processes do not find by themselves.
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

    def launch() -> str:
        done = subprocess.run(
            [*launcher, "--num_processes", "2", "--module", "support.fsdp", *two], check=False,
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ours, theirs = (read_lines(tmp_path / name / "losses.jsonl") for name in ("two", "one"))
        assert [a["loss"] for a in ours] == pytest.approx([b["loss"] for b in theirs], rel=1e-5)
        alone, together = (weights(tmp_path / name) for name in ("one", "two"))
        assert alone.keys() == together.keys()
        assert all(torch.allclose(alone[name], together[name], atol=1e-5) for name in alone)
        return done.stderr

    assert "GiB on each of 2 devices that share the states" in launch()
    shutil.rmtree(tmp_path / "two" / "checkpoint-6")
    for name in ("losses.jsonl", "model.safetensors"):
        (tmp_path / "two" / name).unlink()
    again = launch()
    assert "step 5 of 6" in again
    assert "step 4 of 6" not in again


def test_all_files_of_a_model_in_parts_are_durable_before_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"model-0000{k}-of-00002.safetensors" for k in (1, 2)} | {"model.safetensors.index.json", "config.json"}
    for name in names:
        (tmp_path / name).touch()
    durable: set[str] = set()
    monkeypatch.setattr(folder_module, "sync_file", lambda path: durable.add(path.name))
    folder_module.finish(tmp_path, tmp_path / "absent", [{"step": 1, "loss": 1.5, "learning_rate": 0.1}])
    assert durable >= names


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    from transformers import TrainerState

    with pytest.raises(LadmError, match="^step 3: the loss is nan; lower learning_rate, and start again$"):
        LossPrinter(print).on_log(None, TrainerState(global_step=3), None, logs={"loss": float("nan")})
    with pytest.raises(
        LadmError, match="^step 1: the loss is inf; its weights are damaged, or it needs another --dtype"
    ):
        LossPrinter(print).on_log(None, TrainerState(global_step=1), None, logs={"loss": float("inf")})


def test_faults_in_full(
    ladm: Command, golden_lm: Path, rows: str, config: Path, trained: Path, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    (tmp_path / "text.yaml").write_text("learning_rate: 2e-5\n")
    (tmp_path / "less.yaml").write_text("tokens: -5\n")
    (tmp_path / "typo.yaml").write_text("learning_rat: 1.0e-3\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    bad = topical_rows(golden, [128] * 4)
    bad[2]["input_ids"][5] = 10**6
    outside = save_rows(bad, "outside")
    shutil.copytree(trained, tmp_path / "started")
    base = ("train", "--model", golden_lm, "--rows", rows)
    faults: list[tuple[tuple[Any, ...], int, str]] = [
        ((*base, "--output", tmp_path / "o", "--tokens", "100"), 1,
         "a batch of 100 tokens holds no row of 128 tokens; raise --tokens or batch_tokens, or lower --length"),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--length", "400"), 1,
         f"{rows}: no row has 400 tokens; give a smaller --length"),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--rope-base", "1"), 2,
         "--rope-base must be above 1, not 1"),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--seed", "4294967296"), 2,
         "--seed must be at least 0 and at most 4294967295, not 4294967296"),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--length", "1"), 2,
         "--length must be at least 2, not 1"),
        ((*base, "--output", tmp_path / "o", "--config", tmp_path / "less.yaml"), 2,
         f"--config {tmp_path}/less.yaml: tokens must be at least 1, not -5"),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--config", tmp_path / "text.yaml"), 2,
         f'--config {tmp_path}/text.yaml: learning_rate: "2e-5" is not a number such as 2.0e-5'),
        ((*base, "--output", tmp_path / "o", "--tokens", "10k", "--config", tmp_path / "typo.yaml"), 2,
         f"--config {tmp_path}/typo.yaml: unknown key 'learning_rat'; did you mean learning_rate?"),
        ((*base, "--output", tmp_path / "full", "--tokens", "10k"), 1,
         f"{tmp_path}/full belongs to something else (it holds x); give --output an empty folder"),
        ((*base, "--output", tmp_path / "started", "--tokens", "3500", "--config", config, "--rope-base", "9"), 1,
         f"{tmp_path}/started was started with something else; give another --output, or what it was started with:\n"
         "  settings.rope_base: null before, 9.0 now"),
        (("train", "--model", golden_lm, "--rows", outside, "--output", tmp_path / "p", "--tokens", "10k"), 1,
         f"1 of the 4 rows to train on cannot be used, so leave them out; the first is row 2 of {outside}: id 1000000 "
         "at token 5 is outside the model's vocabulary of 512; was the data made with another tokenizer?"),
        (("train", "--model", GOLDEN, "--rows", rows, "--output", tmp_path / "q", "--tokens", "10k"), 1,
         f"{GOLDEN}: its files lack 1 weights, such as lm_head.weight; use a complete language model"),
    ]  # fmt: skip
    for arguments, code, message in faults:
        result = ladm(*arguments)
        last = result.stderr[result.stderr.rindex("ladm: ") :] if "ladm: " in result.stderr else result.stderr
        assert (result.exit_code, last) == (code, f"ladm: {message}\n")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["x"]
    # A bad row ended the training at its step, and every resume of it: the rows of a training cannot be changed.
    assert not (tmp_path / "p").exists()
    # A model whose weights did not load may be repaired, and then be trained into the same folder.
    assert not (tmp_path / "q" / "train.json").exists()


@pytest.mark.slow
def test_losses_are_sent_to_tensorboard(
    ladm: Command, golden_lm: Path, rows: str, config: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    result = ladm(*settings_of(golden_lm, rows, config, out, "--report-to", "tensorboard"))
    assert result.exit_code == 0, result.output
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    sent = [event.value for event in events.Scalars("train/loss")]
    assert sent == pytest.approx([line["loss"] for line in read_lines(out / "losses.jsonl")], rel=1e-6)


@pytest.mark.slow
def test_a_resume_when_rows_were_added_uses_those_that_it_was_started_with(
    ladm: Command, golden_lm: Path, save_rows: Any, golden: Any, config: Path, tmp_path: Path
) -> None:
    first = topical_rows(golden, [128] * 9)
    words = settings_of(golden_lm, save_rows(first), config, tmp_path / "out", "--tokens", "2_048")
    assert ladm(*words).exit_code == 0
    losses, trained = (tmp_path / "out" / "losses.jsonl").read_bytes(), weights(tmp_path / "out")
    later = [row | {"meta": row["meta"] | {"year": 1999}, "index": 9 + k} for k, row in enumerate(first)]
    # As `ladm prepare` stores them: every row has the new key, null in the first ones.
    shutil.rmtree(tmp_path / "rows")
    save_rows([row | {"meta": row["meta"] | {"year": None}} for row in first] + later)
    finished = ladm(*words)
    assert "is finished already" in finished.stderr
    assert "resumed" not in finished.stderr
    (tmp_path / "out" / "losses.jsonl").unlink()
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    result = ladm(*words)
    assert result.exit_code == 0, result.output
    assert "resumed   with the first 9 rows, as it was started, without those added later" in result.stderr
    assert (tmp_path / "out" / "losses.jsonl").read_bytes() == losses
    again = weights(tmp_path / "out")
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    # Other rows in the place of the first ones are still refused.
    shutil.rmtree(tmp_path / "rows")
    save_rows(later + first)
    result = ladm(*words)
    assert result.exit_code == 1
    assert "data.rows: 9 before, 18 now" in result.stderr
    # A record of something else is compared as before.
    (tmp_path / "out" / "train.json").write_text('{"data": []}')
    assert "was started with something else" in ladm(*words).stderr


def test_a_tracker_that_is_not_installed_is_reported_first(
    ladm: Command, rows: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "wandb" else find(name, *more))
    result = ladm(*settings_of(Path("no-model"), rows, config, tmp_path / "o", "--report-to", "wandb"))
    assert (result.exit_code, result.stderr) == (
        1,
        "ladm: --report-to wandb: wandb is not installed; run pip install wandb\n",
    )
    result = ladm(*settings_of(Path("no-model"), rows, config, tmp_path / "o", "--report-to", "mlflow"))
    assert (result.exit_code, result.stderr) == (
        2,
        "ladm: --report-to 'mlflow' is not trackio or wandb or tensorboard\n",
    )


def test_a_model_without_a_rope_base_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_head=1, n_embd=8).save_pretrained(tmp_path)
    with pytest.raises(LadmError, match="gpt2 has no RoPE base to change; leave --rope-base out$"):
        plan_module.training_config(TrainSettings(model="m", tokens=1, rope_base=1e6), tmp_path)
