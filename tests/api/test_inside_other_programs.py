"""`import ladm` inside another program: its signals, its environment, and its worker processes stay as they were."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ladm
from ladm.api.quiet import echo_to
from ladm.corpus.preparation.tokenization import _tokenizer_threads
from ladm.errors import InterruptedRunError, LadmWarning, LockedError, RowError
from ladm.storage.interrupts import stop_on_signals
from support.documents import write_corpus
from support.paths import GOLDEN


@pytest.fixture
def call(short_rows: str, tmp_path: Path) -> dict[str, Any]:
    """Arguments of `ladm.score` for a few rows."""
    return {"rows": short_rows, "model": GOLDEN, "output": tmp_path / "run", "span_tokens": 16, "dtype": "float32"}


def test_an_error_crosses_the_border_of_a_process(call: dict[str, Any], tmp_path: Path) -> None:
    """Pickled as a worker of multiprocessing.Pool sends it: the pool waits forever for one that cannot be unpickled."""
    config = tmp_path / "config.yaml"
    config.write_text("span_token: 16\n")
    with pytest.raises(ladm.LadmError) as caught:
        ladm.score(**call, config=config)
    assert "unknown key 'span_token'" in str(caught.value)
    errors = [
        caught.value,
        InterruptedRunError("stopped", signal_number=signal.SIGTERM),
        RowError("too_short", "3 tokens"),
        LockedError("in use"),
    ]
    for error in errors:
        restored = pickle.loads(pickle.dumps(error))
        assert (type(restored), str(restored), restored.__dict__) == (type(error), str(error), error.__dict__)


def test_a_scorer_is_not_pickled_and_the_error_says_so() -> None:
    scorer = ladm.Scorer(GOLDEN, dtype="float32", device="cpu")
    for transfer in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(
            TypeError, match=r"^a ladm\.Scorer holds a loaded model and cannot be pickled or copied; make"
        ):
            transfer(scorer)


def test_a_daemonic_process_may_start_no_workers_and_the_error_says_so(
    call: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(config, "daemon", True)
    with pytest.raises(ladm.LadmError, match=r"such as a worker of multiprocessing\.Pool; call it"):
        ladm.score(**call, workers=2)
    assert ladm.score(**call, device="cpu").summary().scored == 7


def test_models_loaded_in_several_threads_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers replaces functions of its classes while it loads a model, and restores them afterwards."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

    from ladm.modeling.causal_lm import load_causal
    from ladm.modeling.facts import model_facts
    from ladm.modeling.observer import load_observer

    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    facts, cpu = model_facts(str(tmp_path)), torch.device("cpu")

    def load(k: int) -> None:
        dtype = (torch.float32, torch.bfloat16)[k % 2]
        if k % 4 < 2:
            model = load_causal(str(tmp_path), dtype=dtype, attention="sdpa")
            assert model.lm_head.weight is model.model.embed_tokens.weight
        else:
            model = load_observer(facts, layers=(0,), dtype=dtype, device=cpu, head=True, check=False)._model
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}

    # Threads take turns so often that without a lock nearly every call meets another.
    interval = sys.getswitchinterval()
    monkeypatch.setattr(PreTrainedModel, "tie_weights", tie_weights := PreTrainedModel.tie_weights)
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load, range(24)))
    finally:
        sys.setswitchinterval(interval)
    assert PreTrainedModel.tie_weights is tie_weights


def test_ctrl_c_is_a_keyboard_interrupt_of_the_program(call: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And no Exception, which a loop of calls with `except Exception` would take for a failed call, and go on."""
    monkeypatch.setattr("ladm.scoring.engines.local.run_in_process", lambda _job: signal.raise_signal(signal.SIGINT))
    # Ignored where the tests were started in the background of a script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            ladm.score(**call)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "finished rows are safe" in str(caught.value.__context__)


def test_a_handler_of_the_program_gets_the_signal(call: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.scoring.engines.local.run_in_process", lambda _job: signal.raise_signal(signal.SIGTERM))
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        with pytest.raises(ladm.LadmError, match="stopped by SIGTERM; finished rows are safe"):
            ladm.score(**call)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]


def test_the_environment_stays_as_it_was(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the number of tokenizer threads, which would count for every process that the program starts later."""
    write_corpus(tmp_path)
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    ladm.prepare(tmp_path / "corpus", tokenizer=talking, output=tmp_path / "first", length=512)  # imports libraries
    before = dict(os.environ)
    ladm.prepare(tmp_path / "corpus", tokenizer=talking, output=tmp_path / "rows", length=512, num_proc=1)
    assert dict(os.environ) == before
    assert "RAYON_NUM_THREADS" not in before


def test_the_environment_stays_as_it_was_when_threads_tokenise_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    first, second = _tokenizer_threads(4), _tokenizer_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["RAYON_NUM_THREADS"] == "4"
    second.__exit__(None, None, None)
    assert dict(os.environ) == before


def test_a_line_that_begins_with_the_name_of_a_folder_is_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    echo = echo_to(progress=True)
    echo("warning is prepared already")
    assert capsys.readouterr().err == "warning is prepared already\n"
    with pytest.warns(LadmWarning, match=r"^only 3 documents$"):
        echo("warning   only 3 documents")


def test_a_handler_that_python_did_not_set_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one of a program in C: Python shows None in its place, and cannot set it again."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ladm.storage.interrupts.signal.getsignal", lambda _number: None)
    with stop_on_signals(tmp_path):
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_by_one_signal_leaves_the_handler_of_the_other_that_python_did_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other signal was ignored while the first one was cleaned up after, and for ever behind that."""
    actual = signal.getsignal
    before = actual(signal.SIGTERM)
    monkeypatch.setattr(
        "ladm.storage.interrupts.signal.getsignal",
        lambda number: None if number == signal.SIGTERM else actual(number),
    )
    with pytest.raises(InterruptedRunError), stop_on_signals(tmp_path):
        os.kill(os.getpid(), signal.SIGINT)
    assert actual(signal.SIGTERM) is before
