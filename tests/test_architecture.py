"""Who may import whom, which options are classified, and that defaults stand in one place."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import ladm
from ladm.cli.main import main
from ladm.settings.score import ScoreSettings

PACKAGE = Path(ladm.__file__).parent
NO_TORCH = {
    "cli",
    "commands.data",
    "commands.evaluate",
    "commands.flags",
    "commands.models",
    "commands.runs",
    "settings",
    "errors",
    "locks",
    "rows",
    "runs",
    "results",
    "storage",
    "models",
    "scorers",
    "selection",
    "signals",
    "subset",
    "upkeep",
    "documents",
    "prepare",
    "tokenizers",
    "calibrate",
    "calibration",
    "check",
    "config",
    "contrast",
    "findings",
    "inspected",
    "options",
    "overview",
    "pictures",
    "profiles",
    "report",
    "rescore",
}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "assemble": {"storage"},
    "attribution": {"focus", "profiles"},
    "calibrate": {
        "calibration", "config", "contrast", "errors", "findings", "focus", "models", "options", "profiles", "progress",
        "results", "rows", "runs", "score", "scorers", "settings", "storage",
    },
    "calibration": {"contrast", "errors", "profiles"},
    "check": {
        "calibrate", "calibration", "contrast", "errors", "findings", "models", "options", "prepare", "profiles",
        "progress", "results", "rows", "runs", "score", "settings", "storage",
    },
    "cli": {"commands", "errors"},
    "commands": set(),
    "commands.data": {"commands", "display", "options", "prepare", "subset"},
    "commands.evaluate": {"commands", "display", "evaluation", "options"},
    "commands.flags": {"selection", "settings"},
    "commands.models": {"calibrate", "check", "commands", "config", "display", "errors", "options", "training"},
    "commands.runs": {
        "commands", "config", "display", "errors", "inspection", "options", "report", "rescore", "results", "runs",
        "score", "settings", "upkeep",
    },
    "config": {"errors", "profiles", "selection", "settings"},
    "contrast": {"errors", "rows"},
    "devices": {"errors"},
    "engines": set(),
    "engines.local": {"engines", "errors", "rows", "runs", "scorers"},
    "engines.worker": {"engines", "errors", "locks", "rows", "runs", "scorers"},
    "engines.ray": {"engines", "errors", "rows", "runs"},
    "engines.shard": {"engines", "errors", "runs", "storage"},
    "engines.units": {"runs"},
    "engines.work": {"engines", "errors", "rows", "runs", "scorers"},
    "evaluation": set(),
    "evaluation.corpora": {"errors", "options", "prepare", "progress", "rows", "tokenizers"},
    "evaluation.needle": {
        "errors", "evaluation", "language", "models", "options", "prepare", "progress", "rows", "storage",
        "tokenizers",
    },
    "evaluation.perplexity": {
        "errors", "evaluation", "language", "models", "options", "prepare", "progress", "rows", "storage",
    },
    "evaluation.tasks": {"devices", "errors", "models", "options", "progress", "storage"},
    "display": set(),
    "documents": {"errors", "models"},
    "errors": set(),
    "findings": {"calibration", "contrast", "errors", "profiles", "settings"},
    "focus": set(),
    "identity": {"errors"},
    "explanation": {"engines", "errors", "focus", "profiles", "rows", "runs", "scorers", "tokenizers"},
    "inspected": {"errors", "overview", "pictures", "runs", "storage"},
    "inspection": {
        "errors", "explanation", "models", "options", "plan", "profiles", "progress", "results", "rows", "runs",
        "scorers", "settings", "signals", "storage", "tokenizers",
    },
    "kernels": set(),
    "kernels.attention": {"errors"},
    "kernels.pfs": {"errors", "focus", "kernels"},
    "kernels.pfs_triton": {"focus", "kernels"},
    "language": {"devices", "errors", "models", "progress"},
    "lines": {"errors", "storage"},
    "locks": {"errors", "runs", "storage"},
    "models": {"errors", "settings"},
    "observer": {"errors", "kernels", "models"},
    "options": {"errors", "settings"},
    "overview": {"errors", "options", "pictures", "profiles", "results", "rows", "runs"},
    "pictures": set(),
    "plan": {"devices", "engines", "errors", "kernels", "models", "observer", "profiles", "scorers", "settings"},
    "prepare": {"assemble", "documents", "errors", "locks", "options", "rows", "runs", "storage", "tokenizers"},
    "profiles": {"errors"},
    "progress": set(),
    "report": {
        "errors", "inspected", "options", "overview", "pictures", "profiles", "progress", "results", "runs",
        "settings", "storage",
    },
    "rescore": {"errors", "locks", "options", "profiles", "results", "runs", "settings", "storage"},
    "results": {"errors", "runs", "storage"},
    "rows": {"errors", "models"},
    "runs": {"errors", "identity", "lines", "storage"},
    "score": {
        "engines", "errors", "identity", "locks", "models", "plan", "progress", "results", "rows", "runs", "scorers",
        "settings", "signals", "tokenizers", "upkeep",
    },
    "scorers": {"rows"},
    "scorers.cds": {"focus", "kernels", "observer", "profiles"},
    "scorers.parts": {"attribution", "focus", "kernels", "observer", "profiles"},
    "scorers.ladm": {"errors", "focus", "observer", "profiles", "rows", "scorers", "settings"},
    "selection": {"errors"},
    "settings": {"errors"},
    "signals": {"errors"},
    "storage": {"errors"},
    "subset": {"errors", "options", "results", "rows", "runs", "selection", "storage"},
    "tokenizers": {"errors", "models", "rows"},
    "training": set(),
    "training.batches": {"errors", "options"},
    "training.folder": {"errors", "identity", "models", "options", "rows", "storage", "training"},
    "training.train": {
        "devices", "errors", "language", "locks", "models", "options", "progress", "rows", "tokenizers", "training",
    },
    "upkeep": {"engines", "errors", "lines", "models", "results", "rows", "runs", "storage"},
}  # fmt: skip


def modules() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_module_is_in_the_table() -> None:
    assert set(modules()) == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_imports_are_those_of_the_table(name: str) -> None:
    ours = {module.split(".")[1] for module in imported(modules()[name]) if module.startswith("ladm.")}
    assert ours <= MAY_IMPORT[name]


@pytest.mark.parametrize("name", sorted(NO_TORCH))
def test_these_load_without_torch(name: str) -> None:
    heavy = {module.split(".")[0] for module in imported(modules()[name], top_level_only=True)}
    assert not heavy & {"torch", "transformers"}


def test_every_option_says_whether_it_changes_the_result() -> None:
    classified = {field.name: field.metadata.get("changes_result") for field in dataclasses.fields(ScoreSettings)}
    assert {name for name, value in classified.items() if not isinstance(value, bool)} == set()
    score = main.commands["score"]
    options = {parameter.name for parameter in score.params} - {"config"}
    assert options == set(classified)


def test_a_setting_that_changes_the_result_changes_the_identity() -> None:
    other = {
        "variant": "paper", "span_tokens": 64, "m": 2, "n": 3, "n0": 5, "d_afs": 2, "d_cds": 2,
        "ablation": "no-std", "reduce": "median", "record": "heads",
    }  # fmt: skip
    resolved_elsewhere = {"attention", "backend", "layers", "dtype", "profile"}
    changing = {field.name for field in dataclasses.fields(ScoreSettings) if field.metadata["changes_result"]}
    assert changing == set(other) | resolved_elsewhere
    for name, value in other.items():
        assert ScoreSettings(**{name: value}).identity() != ScoreSettings().identity(), name


@pytest.mark.parametrize("command", sorted(main.commands))
def test_no_option_has_a_default_of_its_own(command: str) -> None:
    for parameter in main.commands[command].params:
        if isinstance(parameter, click.Option):
            default = parameter.get_default(click.Context(main.commands[command]))
            assert default is None or "UNSET" in repr(default), parameter.name


@pytest.mark.parametrize("command", sorted(main.commands))
def test_what_is_required_is_required(command: str) -> None:
    """A required option is asked for, and not satisfied with nothing."""
    wanted = main.commands[command]
    if any(isinstance(p, click.Option) and p.required for p in wanted.params):
        arguments = ["x" for p in wanted.params if isinstance(p, click.Argument)]
        result = CliRunner().invoke(main, [command, *arguments])
        assert result.exit_code == 2
        assert "Missing option" in result.output
