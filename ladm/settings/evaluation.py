"""What `ladm evaluate perplexity`, `needle` and `tasks` do: their flags with defaults, types, ranges and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladm.errors import UsageError
from ladm.settings.common import DType, device_setting, dtype_setting, model_setting, output_setting, seed_setting
from ladm.settings.fields import DEVICE, Settings, setting
from ladm.settings.quantities import parse_windows

MEASUREMENT = "What is measured"


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings(Settings):
    """The settings of `ladm evaluate perplexity`. `output` None: print only."""

    model: str = model_setting(required=True)
    rows: str = setting(
        "", "Long rows that the model was not trained on, or proof-pile.", metavar="ROWS", required=True
    )
    output: str | None = output_setting(
        "JSON file for the numbers.", metavar="FILE", default=None, required=False, unset="print only"
    )
    # The windows of the paper's Table 2.
    windows: tuple[int, ...] = setting(
        (2048, 4096, 8192, 16384, 32768),
        "Tokens of context, separated by commas.",
        section=MEASUREMENT,
        metavar="N,N,..",
        at_least=2,
        parse=parse_windows,
    )
    # Perplexity by window compares other tokens at each window; the ladder compares the same ones.
    ladder: bool = setting(
        False,
        "Also measure the loss of the same last tokens after a context of each window.",
        section=MEASUREMENT,
    )
    documents: int = setting(100, "At most N rows.", section=MEASUREMENT, metavar="N", at_least=1)
    device: str = device_setting()
    dtype: DType = dtype_setting()

    def check_together(self) -> None:
        if self.ladder and len(self.windows) < 2:
            raise UsageError("--ladder compares contexts; give at least two --windows")


@dataclass(frozen=True, kw_only=True)
class NeedleSettings(Settings):
    """The settings of `ladm evaluate needle`: `repeats` needles at each of `depths` depths of each length."""

    model: str = model_setting("Model folder or Hub id, with its tokenizer.", required=True)
    rows: str = setting(
        "", "Rows made with the same tokenizer to hide needles in, or proof-pile.", metavar="ROWS", required=True
    )
    output: str = output_setting("File for the numbers; the heat map is written next to it.", metavar="FILE.json")
    lengths: tuple[int, ...] = setting(
        (4096, 8192, 16384, 32768),
        "Tokens of context, separated by commas.",
        section=MEASUREMENT,
        metavar="N,N,..",
        at_least=2,
        parse=parse_windows,
    )
    # 5 depths with 5 repeats give 25 answers for each length: a step of 4 % in their mean.
    depths: int = setting(
        5, "Number of depths from the start to the end.", section=MEASUREMENT, metavar="N", at_least=1
    )
    repeats: int = setting(5, "Needles at each depth of each length.", section=MEASUREMENT, metavar="N", at_least=1)
    seed: int = seed_setting(section=MEASUREMENT)
    device: str = device_setting()
    dtype: DType = dtype_setting()

    def check_together(self) -> None:
        if self.output and not self.output.endswith(".json"):
            raise UsageError(f"--output {self.output}: name a .json file; the heat map is written next to it")


@dataclass(frozen=True, kw_only=True)
class TasksSettings(Settings):
    """The settings of `ladm evaluate tasks`, which lm-eval runs."""

    model: str = model_setting("Model folder or Hub id, with its tokenizer.", required=True)
    output: str | None = output_setting(
        "JSON file for the results.", metavar="FILE", default=None, required=False, unset="print only"
    )
    tasks: tuple[str, ...] = setting(
        ("short",),
        "short, longbench, ruler, or a task of lm-eval; may be repeated.",
        section=MEASUREMENT,
        metavar="TASK",
        flag="task",
    )
    length: int | None = setting(
        None, "Longest context in tokens.", section=MEASUREMENT, metavar="TOKENS", unset="the model's", at_least=1
    )
    limit: int | None = setting(
        None, "Only the first N questions of a task.", section=MEASUREMENT, metavar="N", unset="all", at_least=1
    )
    include_path: str | None = setting(
        None,
        "Folder of additional lm-eval tasks.",
        section=MEASUREMENT,
        metavar="FOLDER",
        unset="none",
    )
    device: str = device_setting()
    dtype: DType = dtype_setting()
    batch_size: int | Literal["auto"] = setting(
        "auto", "Questions per step; auto: lm-eval's choice.", section=DEVICE, at_least=1
    )
