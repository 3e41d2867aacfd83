"""Flags and YAML files: types, ranges, suggestions, what beats what; help with sections and examples; one voice."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ladm
from ladm.api.scored_run import ScoredRun
from ladm.cli.main import main
from ladm.errors import UsageError
from ladm.settings.calibration import CalibrateSettings
from ladm.settings.comparison import CompareSettings
from ladm.settings.config_file import load_settings, read_config, score_settings
from ladm.settings.data import PrepareSettings
from ladm.settings.evaluation import PerplexitySettings, TasksSettings
from ladm.settings.fields import settings_of
from ladm.settings.runs import InspectSettings
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings
from ladm.settings.training import TrainSettings
from support.paths import GOLDEN, ROOT

Run = Callable[..., Result]


def stderr(*words: str) -> str:
    """Standard error of a command that must be refused as a usage error."""
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score rows --variant releasd", "--variant 'releasd' is not released or paper; did you mean released?"),
        ("score rows --m one", "--m 'one' is not a whole number"),
        ("prepare d.jsonl --tokenizer t -o rows --length 32k",
         "--length '32k' is not a whole number; write all its digits, such as 32768"),
        ("score rows -o run --m -1", "--m must be at least 0, not -1"),
        ("score rows --batch-size many", "--batch-size 'many' is not a whole number or auto"),
        ("score rows --span-token 4", "no such option --span-token; did you mean --span-tokens?"),
        ("score rows --banana", "no such option --banana"),
        ("score rows more -o run", "got unexpected extra argument (more)"),
        ("report run run2 --subset both",
         "report takes one RUN; give it each: ladm report run --subset both && ladm report run2 --subset both"),
        ("top --by robust run run2 run3", "top takes one RUN; give it each: ladm top --by robust run && ladm top --by "
         "robust run2 && ladm top --by robust run3"),
        ("report run run2 -o page.html", "report takes one RUN; give it each, with an --output of its own"),
        ("prepare a.txt @empty -o rows --tokenizer t", "SOURCE is an empty text; leave it out, or give a name"),
        ("select run --rows rows -o s --tokens 1k --domain @empty",
         "--domain is an empty text; leave it out, or give a name"),
        ("prepare a.txt -o rows --tokenizer t --text-key @empty",
         "--text-key is an empty text; leave it out, or give a name"),
        ("score rows --output", "option '--output' requires an argument"),
        ("train --rope-base 1 --model a --rows b -o c --tokens 1k", "--rope-base must be above 1, not 1"),
        ("train --learning-rate nan --model a --rows b -o c --tokens 1k",
         "--learning-rate must be above 0 and below 10, not nan"),
        ("select run --rows rows -o s --tokens 0", "--tokens '0' must be a whole number of tokens, at least 1"),
        ("evaluate perplexity --windows 9,x", "--windows '9,x' is not a list of numbers of tokens such as 2048,4096"),
    ],
)  # fmt: skip
def test_usage_errors_have_one_voice(words: str, message: str) -> None:
    command = "evaluate perplexity" if words.startswith("evaluate") else words.split()[0]
    typed = ["" if word == "@empty" else word for word in words.split()]
    assert stderr(*typed) == f"ladm: {message}\ntry: ladm {command} --help\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("select run --rows rows -o s --documents", "--documents is too large a number"),
        ("score rows -o run --layers", "is not a list such as 0-10,14"),
        ("score rows -o run --device cuda:", "is not one of auto, cpu, cuda, cuda:0,1"),
        ("prepare a.txt -o rows --tokenizer t --windows", "is neither first, all nor a number of at least 1"),
        ("evaluate perplexity --windows", "is not a list of numbers of tokens such as 2048,4096"),
    ],
)
def test_a_number_of_thousands_of_digits(words: str, message: str) -> None:
    """Python reads none of 4,300 digits, and makes no float of one of 310."""
    digits = "9" * (400 if "--documents" in words else 5000)
    typed = f"{words}{'' if words.endswith(':') else ' '}{digits}".split()
    assert message in stderr(*typed).partition("\n")[0]


def test_an_unknown_command() -> None:
    assert stderr("scor") == "ladm: no such command 'scor'; did you mean score?\ntry: ladm --help\n"
    assert stderr("zzz") == "ladm: no such command 'zzz'\ntry: ladm --help\n"


def test_no_suggestion_deletes_anything(tmp_path: Path) -> None:
    """Every flag that deletes is marked, and no word close to one leads to it."""
    destructive = [field for field in settings_of(ScoreSettings) if field.spec.destructive]
    assert [field.flag for field in destructive] == ["--overwrite"]
    file = tmp_path / "c.yaml"
    for typed in ("overwrit", "overwrite_", "over-write", "overwriting", "verbose", "override"):
        assert "overwrite?" not in stderr("score", "rows", f"--{typed}")
        file.write_text(f"{typed}: true\n")
        message = stderr("score", "rows", "--config", str(file))
        assert message.startswith(f"ladm: --config {file}: unknown key {typed!r}; ")
        assert "overwrite" not in message.partition("; ")[2]


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("score rows --model m", "top: 50%\nby: gain",
         "'top'; all keys of the file are settings of ladm run or ladm select"),
        ("select run", "top: 50%\nspan-tokens: 16\nrows: r\nworkers: 2",
         "'span-tokens'; it is a setting of ladm run or ladm score or ladm check and others, and a file has the "
         "settings of one command"),
        ("prepare d", "windows: all\ntask: short",
         "'task'; it is a setting of ladm evaluate tasks, and a file has the settings of one command"),
        ("prepare d", "tasks: [short]", "'tasks'; all keys of the file are settings of ladm evaluate tasks"),
        ("prepare d", "select:\n  top: 50%", "'select'; a file has the settings of one command, without sections"),
        ("prepare d", "windows: all\noverwrite: true", "'overwrite'; the keys are sources, tokenizer, output, "),
        ("select run", "qouta: tokens", "'qouta'; did you mean quota?"),
    ],
)  # fmt: skip
def test_a_file_of_another_command_names_it(tmp_path: Path, command: str, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    found = stderr(*command.split(), "--config", str(file), "-o", str(tmp_path / "out"))
    assert found.startswith(f"ladm: --config {file}: unknown key {message}")
    assert len(found.splitlines()) == 2


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (PrepareSettings, "lenght: 5", "unknown key 'lenght'; did you mean length?"),
        (PrepareSettings, "length: 0", "length must be at least 1, not 0"),
        (PrepareSettings, "length: true", "length: true is not a whole number"),
        (PrepareSettings, "length: 32K", 'length: "32K" is not a whole number; write all its digits, such as 32768'),
        (PrepareSettings, "bos: 1", "bos: 1 is not true or false or null"),
        (SelectSettings, "rule: percnt", 'rule: "percnt" is not exact or percent; did you mean percent?'),
        (SelectSettings, "tokens: 1x", "tokens: '1x' is not a number of tokens such as 1B, 500M, 250k or 1073741824"),
        (SelectSettings, "tokens: [1]", "tokens: a nested value is not a whole number or text or null"),
        (SelectSettings, "tokens: {a: 1}", "tokens: a nested value is not a whole number or text or null"),
        (TrainSettings, "rope_base: .inf", "rope_base must be above 1, not inf"),
        (TrainSettings, "learning_rate: -1", "learning_rate must be above 0 and below 10, not -1"),
        (TasksSettings, "task: [1]", "task: [1] is not a list of texts"),
        (PerplexitySettings, "windows: [2048, 1]", "windows must be at least 2, not 1"),
        (PrepareSettings, "length: 4\nlength: 5", "is not YAML: line 2 has the key length a second time"),
        (PrepareSettings, "text-key: a\ntext_key: b", "text_key is a second value for --text-key"),
        (TasksSettings, "task: short\ntasks: [ruler]", "tasks is a second value for --task"),
        (CalibrateSettings, "ablation: no-std",
         "remove ablation, which calibration chooses itself"),
        (CalibrateSettings, "fruit: apple", "unknown key 'fruit'; the keys are model, rows, output, work, dry_run, "
         "lists, documents, exclude_domain, domain_key, package_key, seed, allow_other_tokenizer, objective, max_cost, "
         "layers, search, variant, span_tokens, m, n, n0, d_afs, d_cds, device, dtype, attention, backend, batch_size"),
    ],
)  # fmt: skip
def test_a_file_is_refused_by_file_and_key(tmp_path: Path, kind: type, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        load_settings(kind, str(file), {})
    assert str(error.value) == f"--config {file}{'' if message.startswith('is not YAML') else ':'} {message}"


def test_a_key_is_a_flags_name_and_a_flag_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("sources: [a.txt]\ntokenizer: t\noutput: rows\ntext-key: body\nlength: 64\nbos: false\n")
    settings = load_settings(PrepareSettings, str(file), {"length": 32, "limit": None})
    assert (settings.sources, settings.text_key, settings.length, settings.bos) == (("a.txt",), "body", 32, False)
    file.write_text("model: m\ntask: short\nlimit: 3\n")
    assert load_settings(TasksSettings, str(file), {}).tasks == ("short",)
    file.write_text("run: run\nrows: rows\noutput: s\ntokens: 1.5k\n")
    assert load_settings(SelectSettings, str(file), {}).tokens == 1500
    # What has commas on the command line may be a list here, as from Python.
    for kind, line, expected in (
        (ScoreSettings, "signals: [cds, text]", "cds,text"),
        (ScoreSettings, "layers: [0-3, 7]", "0-3,7"),
        (ScoreSettings, "layers: [7]", "7"),
        (CompareSettings, "columns: [score, 'rank(gain) + 1']", "score,rank(gain) + 1"),
    ):
        file.write_text(line)
        assert list(read_config(file, kind).values()) == [expected]
    file.write_text("signals: [[cds]]")
    with pytest.raises(UsageError, match="signals: a nested value is not text or null"):
        read_config(file, ScoreSettings)
    file.write_text("model: m\nrows: r\nwindows: [256, 64, 128, 64]\n")
    # The largest window is the last one, and was taken to be that of 128 tokens here.
    assert load_settings(PerplexitySettings, str(file), {}).windows == (64, 128, 256)
    file.write_text("run: run\nid: [4711, a]\n")
    assert load_settings(InspectSettings, str(file), {}).id == ("4711", "a")
    file.write_text("layers: 14\n")
    assert score_settings(str(file), {"rows": "r", "output": "o"}).layers == "14"
    for paper in ("paper", "toy", "published"):
        config = str(ROOT / "configs" / f"{paper}.yaml")
        assert score_settings(config, {"rows": "r", "output": "o"}).variant == "released"
        same = load_settings(CalibrateSettings, config, {"model": "m", "rows": "r", "output": "o"})
        assert {"m": 1, "n": 4, "d_afs": 4, "d_cds": 4}.items() <= same.scoring.items()


def test_prepare_and_select_from_a_file(ladm: Run, talking: Path, tmp_path: Path) -> None:
    """The whole of a command from its file, and the same with a flag that beats it."""
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"body": f"w{k} w7 " * 30}) + "\n" for k in range(4)))
    config = tmp_path / "prepare.yaml"
    config.write_text(f"tokenizer: {talking}\ntext_key: body\nlength: 8\ndomain: own\noutput: {tmp_path}/rows\n")
    result = ladm("prepare", tmp_path / "d.jsonl", "--config", config)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"rows: {tmp_path}/rows (4 rows)")
    result = ladm("prepare", tmp_path / "d.jsonl", "--config", config, "--limit", "2", "-o", tmp_path / "two")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"rows: {tmp_path}/two (2 rows)")
    score = ("score", tmp_path / "rows", "--model", GOLDEN, "--span-tokens", "1", "--m", "0", "--d-afs", "1")
    result = ladm(*score, "--device", "cpu", "--dtype", "float32", "-o", tmp_path / "run", "--config", "/dev/null")
    assert result.exit_code == 0, result.output
    config.write_text(f"rows: {tmp_path}/rows\ntokens: 16\noutput: {tmp_path}/subset\ndry_run: true\n")
    result = ladm("select", tmp_path / "run", "--config", config)
    assert (result.exit_code, (tmp_path / "subset").exists()) == (0, False), result.output


def made_by(name: str) -> Any:
    """A script that writes a page or a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = list(made_by("cli").commands(main))


def test_the_page_of_the_command_line_is_up_to_date() -> None:
    script = made_by("cli")
    assert script.PAGE.read_text() == script.page(), "run python scripts/docs/cli.py"


def test_the_types_of_keyword_arguments_are_up_to_date() -> None:
    for path, text in made_by("flags").modules().items():
        assert path.read_text() == text, "run python scripts/docs/flags.py"


CALLS = made_by("flags").CALLS


@pytest.mark.parametrize("name", CALLS)
def test_a_call_refuses_what_its_types_do_not_have(name: str) -> None:
    function, kind, refused = CALLS[name]
    own = inspect.signature(function).parameters
    needed = [each for each in own if own[each].default is inspect.Parameter.empty and each not in ("self", "settings")]
    arguments = dict.fromkeys(needed, "nothing-there")
    run = [ScoredRun(Path("nothing-there"))] * ("self" in own)
    for field in (field.name for field in settings_of(kind) if field.name not in own):
        # What a call takes is refused for its type, or for the run or model that is not there.
        with pytest.raises(ladm.LadmError) as error:
            function(*run, **arguments, **{field: object()})
        assert ("has no setting" in str(error.value)) == (field in refused), (field, str(error.value))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(("ladm", *words)))
def test_every_help_has_examples_that_the_command_line_accepts(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*words, "-h"]).stdout
    examples = re.search(r"^Examples?:\n((?: .*\n)+)", shown, re.MULTILINE)
    assert examples
    for line in examples[1].replace("\\\n", " ").splitlines():
        example = line.split()
        assert example[:2] == ["ladm", *words[:1]] or "accelerate" in example or not words, line
        arguments = example[example.index("ladm") + 1 :]
        context = main.make_context("ladm", list(arguments))
        name, command, rest = main.resolve_command(context, arguments)
        if name == "evaluate":
            _, command, rest = command.resolve_command(context, rest)  # type: ignore[union-attr]
        assert command is not None
        parsed = command.make_context(command.name, list(rest), parent=context).params
        for field in settings_of(command.kind):  # type: ignore[attr-defined]
            in_file = parsed["config"] and field.name in ("model", "rows", "sources")
            assert not field.spec.required or parsed[field.name] or in_file, (line, field.name)


def test_the_letters_of_the_method_have_a_section_of_their_own() -> None:
    shown = CliRunner().invoke(main, ["score", "--help"]).stdout
    sections = dict(re.findall(r"^(\w.*):\n((?:(?:  .*)?\n)+?)(?=^\w|\Z)", shown, re.MULTILINE))
    (letters,) = (text for title, text in sections.items() if title.startswith("Method"))
    flags = re.findall(r"^  (--[\w-]+)", letters, re.MULTILINE)
    assert flags == ["--variant", "--span-tokens", "--m", "--n", "--n0", "--d-afs", "--d-cds", "--ablation"]
    assert len(sections) >= 7


def test_short_flags() -> None:
    assert CliRunner().invoke(main, ["-V"]).stdout == CliRunner().invoke(main, ["--version"]).stdout
    for kind in (PrepareSettings, SelectSettings, ScoreSettings, CalibrateSettings, TrainSettings, TasksSettings):
        assert [field.flag for field in settings_of(kind) if field.spec.short == "-o"] == ["--output"]


HEAVY = ("torch", "numpy", "transformers", "datasets", "pyarrow", "yaml", "pydantic", "tqdm", "matplotlib", "duckdb")


@pytest.mark.parametrize("words", [[], ["score"], ["evaluate", "tasks"]])
def test_help_is_quick_and_loads_no_torch(words: list[str]) -> None:
    """Quick because of what is not loaded: measured in modules, which no busy machine changes."""
    code = (
        "import sys; from ladm.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        f"finally: print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert "Usage: ladm" in done.stdout


@pytest.mark.parametrize("words", ["status nothing", "prepare nothing.jsonl --tokenizer nothing --length 8 -o rows"])
def test_a_working_folder_that_was_removed_is_named(tmp_path: Path, words: str) -> None:
    """Relative names fail in it, and so do imports of transformers."""
    code = "import os, sys; os.rmdir(os.getcwd()); from ladm.cli.main import main; main(sys.argv[1:])"
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=gone, capture_output=True, text=True)
    assert done.returncode in (1, 74)
    assert done.stderr.startswith("ladm: ")
    assert done.stderr.endswith("; the working folder no longer exists, so change to one that does\n")
    assert done.stderr.count("\n") == 1
