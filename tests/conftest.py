"""Fixtures: the golden model and its scores, row folders, and a command-line runner that fails on a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from support.files import read_object
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows

# A busy machine takes long for an example; how long it takes is no fault.
settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any load")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

# Tests in the background of a script are started with Ctrl-C ignored, and the commands that they run would be too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = """
    engines pipeline check_in_python kernels score forecast runs survival train torture security focus id_lists
    scarce_resources damage run_in_python
""".split()
"""Files of tests that take longest. One of them started last would leave all other cores idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    loaded = json.loads((GOLDEN / "released_cds.json").read_text())
    names = {"No": "none", "no_std": "no-std", "no_len_weight": "no-length"}
    for case in loaded["cases"]:
        case["ablation"] = names[case["ablation"]]
    return loaded


@pytest.fixture(scope="session")
def golden_observer() -> Any:
    import torch

    from ladm.modeling.facts import model_facts
    from ladm.modeling.observer import load_observer

    facts = model_facts(str(GOLDEN))
    return load_observer(facts, layers=(0, 1, 2), dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def golden_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model as a language model: with a head, which the golden files do not have."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("golden") / "lm"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_pretrained(GOLDEN, dtype=torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def talking_model(golden_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden model with a word tokenizer of 512 words, which no test changes."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ladm.evaluation import needle

    folder = Path(shutil.copytree(golden_lm, tmp_path_factory.mktemp("talking") / "model"))
    words = [*"0123456789.\n:? ", "[UNK]", "The", "magic", "number", "of", "is", "Question", "What", "Answer", "the"]
    words += [*needle.CITIES, *(f"w{k}" for k in range(512 - len(words) - len(needle.CITIES)))]
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Whitespace()]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", bos_token="w0", eos_token="w1"
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def talking(talking_model: Path, tmp_path: Path) -> Path:
    """A copy of that model."""
    return Path(shutil.copytree(talking_model, tmp_path / "talking"))


@pytest.fixture
def save_rows(tmp_path: Path) -> Callable[..., str]:
    """Save a list of rows as a DatasetDict with `train`, as published; returns the folder."""

    def save(rows: list[dict[str, Any]], name: str = "rows", **options: Any) -> str:
        from datasets import Dataset, DatasetDict

        folder = tmp_path / name
        DatasetDict(train=Dataset.from_list(rows, **options)).save_to_disk(str(folder))
        return str(folder)

    return save


@pytest.fixture(scope="session")
def runs_so_far(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, ...], Path]]:
    """Where `score_once` keeps its runs, and which there are, by the rows and the flags."""
    return tmp_path_factory.mktemp("runs"), {}


@pytest.fixture
def score_once(
    ladm: Callable[..., Result], runs_so_far: tuple[Path, dict[tuple[str, ...], Path]]
) -> Callable[..., Path]:
    """Score a folder of rows with the tiny model, for tests of what comes after: equal rows are scored once a session.

    The run is a copy of its own at `output`, which names the rows that were given, as if it had been made of them.
    """
    from ladm.storage.json_object import json_with_checksum

    root, known = runs_so_far

    def score(rows: str | Path, *flags: Any, output: Path) -> Path:
        content = hashlib.sha256()
        for path in sorted(Path(rows).rglob("*.arrow")):
            content.update(path.read_bytes())
        key = (content.hexdigest(), *map(str, flags))
        if key not in known:
            run = root / f"run{len(known)}"
            result = ladm("score", rows, *SMALL, *flags, "--output", run)
            assert result.exit_code == 0, result.output
            known[key] = run
        shutil.copytree(known[key], output)
        made = read_object(output / "run.json")
        made["about"]["rows"] = str(rows)
        (output / "run.json").write_bytes(json_with_checksum(made))
        return output

    return score


@pytest.fixture
def score_rows(
    score_once: Callable[..., Path], save_rows: Callable[..., str], tmp_path: Path
) -> Callable[[list[dict[str, Any]]], tuple[str, Path]]:
    """Save rows and have them scored with the tiny model; returns the folders of the rows and of the run."""

    def score(rows: list[dict[str, Any]]) -> tuple[str, Path]:
        folder = save_rows(rows)
        return folder, score_once(folder, output=tmp_path / "run")

    return score


@pytest.fixture(scope="session")
def made_job(tmp_path_factory: pytest.TempPathFactory, talking_model: Path) -> Path:
    """A folder with a shard of documents, a model and a finished job of both; `whole` beside it is a copy."""
    from ladm.cli.main import main
    from support.jobs import job_words, write_finepdfs

    folder = tmp_path_factory.mktemp("made") / "used"
    shutil.copytree(talking_model, folder / "talking")
    shard = write_finepdfs(folder / "000_00000.parquet")
    words = job_words(shard, folder / "talking", folder / "job")
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    (folder / "printed.json").write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}))
    shutil.copytree(folder, folder.parent / "whole")
    return folder


@pytest.fixture
def finished_job(made_job: Path) -> tuple[Path, Path, Path]:
    """The shard, the model and the job of `job_words`, at the places that its files name, as it was made.

    A test may change all of them, and write beside them: the next one gets them again.
    """
    shutil.rmtree(made_job)
    shutil.copytree(made_job.parent / "whole", made_job)
    return made_job / "000_00000.parquet", made_job / "talking", made_job / "job"


@pytest.fixture
def ladm() -> Callable[..., Result]:
    """Run the command in this process; a traceback fails the test."""
    from ladm.cli.main import main

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        if result.exit_code == 2 and result.stderr:
            _cut_the_way_to_help(result)
        return result

    return run


def _cut_the_way_to_help(result: Result) -> None:
    """Every usage error ends with the same line; a test then compares the message alone."""
    text = result.stderr
    head, line = text[: text.rstrip("\n").rfind("\n") + 1], text.splitlines()[-1]
    assert re.fullmatch(r"try: ladm(?: [a-z]+)* --help", line), text
    result.stderr_bytes = head.encode()


@pytest.fixture
def short_rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, [700, 512, 700, 650, 512, 700, 512])))


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Training on a CPU flushes denormal numbers to zero, for its whole process; the next test has them again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level BPE tokenizer that puts a token of its own in front, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from support.documents import WORDS

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>").save_pretrained(str(folder))
    return str(folder)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Twelve documents as FinePDFs has them."""
    from support.jobs import write_finepdfs

    return write_finepdfs(tmp_path / "000_00000.parquet")
