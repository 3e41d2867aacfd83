"""What loads without torch, which options are classified, and that defaults stand in one place.

Who may import whom: the contracts of import-linter in `pyproject.toml`.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import ladm
from ladm.cli.evaluation import evaluate
from ladm.cli.main import main
from ladm.corpus.rows.reading import open_rows
from ladm.errors import install_hint
from ladm.scoring.identity import identity_of, machine_identity
from ladm.scoring.plan import make_plan
from ladm.settings.field_types import fits
from ladm.settings.fields import out_of_range, settings_of
from ladm.settings.score import ScoreSettings
from support.paths import GOLDEN

PACKAGE = Path(ladm.__file__).parent
WITHOUT_TORCH = (
    "ladm.cli.main ladm.settings.config_file ladm.method.grid ladm.method.reduction ladm.modeling.facts "
    "ladm.storage.locks ladm.corpus.preparation.prepare "
    "ladm.runs.folder ladm.runs.results ladm.runs.status ladm.runs.verify "
    "ladm.scoring.engines.local ladm.scoring.rescore ladm.selection.subset "
    "ladm.calibration.calibrate ladm.calibration.check ladm.report.page ladm.comparison.page ladm.comparison.top"
).split()


def test_these_modules_load_without_torch() -> None:
    """A command that needs no model answers at once, and the supervisor of workers stays small.

    One process for all: where none of them has loaded torch, none does so alone.
    """
    code = (
        f"import importlib, sys\nfor name in {WITHOUT_TORCH}:\n    importlib.import_module(name)\n"
        "    if found := {'torch', 'transformers'} & set(sys.modules):\n        sys.exit(f'{name} loads {found}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_shadows_a_package() -> None:
    """Python started inside any folder of the package still finds what it and its libraries import."""
    installed = {name.partition(".")[0] for name in importlib.metadata.packages_distributions()}
    ours = {path.stem for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert ours & (set(sys.stdlib_module_names) | installed) == set()


@pytest.mark.slow
def test_libraries_load_in_every_folder_of_the_package() -> None:
    """The same of the libraries that import what has no name of its own among the installed ones."""
    folders = sorted({str(path.parent) for path in PACKAGE.rglob("*.py")} - {str(PACKAGE.parent)})
    code = f"import sys; sys.path[:0] = {folders}; from transformers import AutoTokenizer; import datasets, ladm.errors"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_setting_that_changes_the_result_changes_the_identity_and_no_other_does(save_rows: Any) -> None:
    changing = {
        "variant": "paper", "span_tokens": 64, "m": 2, "n": 3, "n0": 5, "d_afs": 2, "d_cds": 2,
        "ablation": "no-std", "reduce": "median", "record": "heads", "signals": "cds",
        "context_gain": "blocks", "prolong_pairs": 9, "layers": "0", "dtype": "bfloat16",
    }  # fmt: skip
    # They change it too, and what they are resolved to is tested where that is done.
    resolved_elsewhere = {"attention", "backend", "fused", "profile", "score", "unigrams"}
    others = {"batch_size": 2, "workers": 2, "shard": "0/2", "max_errors": 3, "fail_fast": True, "retry_errors": True}
    # What they name is in the identity by its content, or they are about how a command ends.
    by_content = {"rows", "model", "output", "device", "engine", "limit"}
    flags = {"allow_other_tokenizer", "dry_run", "overwrite"}
    # A new setting must be put into one of these.
    known = {field.name for field in settings_of(ScoreSettings)}
    assert known == {*changing, *resolved_elsewhere, *others, *by_content, *flags}
    rows = open_rows(save_rows([{"input_ids": [5] * 600} for _ in range(2)]))
    every = {"signals": "cds,context-gain,prolong", "span_tokens": 16, "dtype": "float32"}

    def identity(**changes: Any) -> dict[str, Any]:
        settings = ScoreSettings(**every | {"rows": rows.name, "model": str(GOLDEN), "output": "run"} | changes)
        plan = make_plan(settings)
        content = dict(identity_of(plan, rows, machine=machine_identity(plan.facts)).content)
        # A resumed run may have another of these.
        del content["about"]
        return content

    before = identity()
    for name, value in changing.items():
        assert identity(**{name: value}) != before, name
    for name, value in others.items():
        assert identity(**{name: value}) == before, name


COMMANDS = {**main.commands, **{f"evaluate {name}": command for name, command in evaluate.commands.items()}}
del COMMANDS["evaluate"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_option_has_a_default_of_its_own(command: str) -> None:
    for parameter in COMMANDS[command].params:
        if isinstance(parameter, click.Option):
            default = parameter.get_default(click.Context(COMMANDS[command]))
            assert default is None or "UNSET" in repr(default), parameter.name


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_field_is_a_flag_with_help(command: str) -> None:
    """Choices, ranges, defaults and help are written on the field; a command has no flag beside them but --config."""
    kind = COMMANDS[command].kind  # type: ignore[attr-defined]
    general = ("config", "as_json", "quiet", "verbose")
    names = [p.name for p in COMMANDS[command].params if p.name not in general]
    assert names == [field.name for field in settings_of(kind)]
    for field in settings_of(kind):
        assert field.spec.positional or field.spec.help.endswith("."), field.name
        assert fits(field.default, field.kind), field.name
        assert out_of_range(field.default, field.spec) is None or field.spec.required, field.name
        if field.default is None:
            assert field.spec.unset, f"{command} {field.flag}: the help does not show what happens without it"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_is_required_is_required(command: str) -> None:
    """Each required flag or argument is named by the error when it alone is missing."""
    required = [field for field in settings_of(COMMANDS[command].kind) if field.spec.required]  # type: ignore[attr-defined]
    assert required
    for missing in required:
        given = [field for field in required if field is not missing]
        words = [word for field in given for word in ([] if field.spec.positional else [field.flag]) + ["9"]]
        result = CliRunner().invoke(main, [*command.split(), *words])
        message = f"ladm: {missing.flag} is missing; give it here or in the file of --config\n"
        assert (result.exit_code, result.stderr) == (2, f"{message}try: ladm {command} --help\n")


INSTALLERS = r"(?:pip3? install|pipx (?:install|run)|uv (?:add|pip install|tool (?:install|run))|uvx|conda install)"
NAMES_OURS = re.compile(rf"{INSTALLERS}\b[^\n`]*?[\s'\"=](?:ladm|ladm-select)(?![\w/.-]|'s\b)")
PAGES = ("*.py", "*.md", "*.sh", "*.toml", "*.yaml", "*.yml", "*.cfg", "*.sbatch", "*.cff", "*.html", "*.j2", "*.txt")


def test_no_message_or_page_installs_ladm_from_pypi() -> None:
    """`ladm` on PyPI is an unrelated package: an installation is always of a local path, such as `pip install .`."""
    for bad in ("pip install 'ladm[eval]'", "pip install ladm", "uvx ladm score", 'pip install -U "ladm"'):
        assert NAMES_OURS.search(bad), bad
    for good in ("pip install .", "pip install '.[eval]' in ladm's source folder", "pip install ./ladm"):
        assert not NAMES_OURS.search(good), good
    root = PACKAGE.parent
    tracked = subprocess.run(["git", "ls-files", *PAGES], cwd=root, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = [root / name for name in tracked.stdout.splitlines() if name != "tests/project/test_architecture.py"]
    assert len(files) > 100
    found = [str(path) for path in files if path.exists() and NAMES_OURS.search(path.read_text(encoding="utf-8"))]
    assert found == []
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] != "ladm"
    assert set(project["scripts"]) == {"ladm"}


def test_every_extra_that_a_message_names_exists() -> None:
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r"install_hint\(['\"](\w+)['\"]\)", code))
    assert {"eval", "flash", "ray", "train"} <= named <= set(extras)
    assert install_hint("ray") == "run pip install '.[ray]' in ladm's source folder"
