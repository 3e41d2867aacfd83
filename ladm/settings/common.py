"""Fields that several commands share, so that each reads the same everywhere."""

from __future__ import annotations

import re
from typing import Any, Literal

from ladm.errors import UsageError
from ladm.settings.fields import DEVICE, INPUT_AND_OUTPUT, METHOD, setting

DType = Literal["auto", "float32", "bfloat16", "float16"]

DOMAIN_KEY = "meta.pile_set_name"
DOMAIN_COLUMN = "domain"
"""The column that holds the domain of a row without one under DOMAIN_KEY."""
TEXT_COLUMN = "text"
"""The column that holds the text of a row."""
NAME_COLUMNS = ("id", "domain", "source")
"""Columns that say which document a row is; the results of a run repeat them."""
# A word rather than an empty text, which shells and YAML files lose easily.
NO_DOMAINS = "none"
"""As a `--domain-key`: treat all documents as one domain."""
ONE_DOMAIN = "all"
"""The name of that one domain."""


WRITE_LOCALLY = "write to this machine and copy the result there (only ladm select writes to addresses)"
READ_LOCALLY = "copy the run to this machine and give its folder"


def run_setting() -> Any:
    """The run folder of a command that reads one."""
    return setting("", "", metavar="RUN", required=True, positional=True, not_an_address=READ_LOCALLY)


def runs_setting() -> Any:
    """The run folders of a command that reads several."""
    return setting(
        (), "", metavar="RUN", required=True, positional=True, flag="run", not_an_address=READ_LOCALLY
    )  # fmt: skip


def output_setting(help_text: str, *, metavar: str, **more: Any) -> Any:
    """Where the result goes; `-o` in every command. A place on this machine unless `not_an_address` is None."""
    # No default in most commands: a result must not land in whatever folder the user happens to be in.
    given: dict[str, Any] = {"required": True, "default": "", "not_an_address": WRITE_LOCALLY} | more
    return setting(given.pop("default"), help_text, short="-o", metavar=metavar, **given)


def model_setting(help_text: str = "Model folder or Hub id.", *, default: str | None = "", **more: Any) -> Any:
    """The model of a command."""
    return setting(default, help_text, metavar="MODEL", **more)


def device_setting(help_text: str = "auto, cpu or cuda.", *, default: str | None = "auto", **more: Any) -> Any:
    """Where the model runs."""
    return setting(default, help_text, section=DEVICE, metavar="DEVICE", parse=parse_device, **more)


def parse_device(text: str) -> str:
    """The text, unless it is no device. Whether there is such a device is not known here, because that takes torch.

    Raises UsageError for another spelling, and for a device that is named twice.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,9}(?:,\d{1,9})*))?", text)
    if match is None:
        raise UsageError(f"{text!r} is not one of auto, cpu, cuda, cuda:0,1")
    numbers = [int(number) for number in (match[1] or "").split(",") if number]
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"{text} names a device twice")
    return text


def dtype_setting(*, default: str | None = "auto", **more: Any) -> Any:
    """The model's number format."""
    help_text = "Precision of the model; auto: bfloat16 where the device is fast at it, else float32."
    return setting(default, help_text, section=DEVICE, **more)


def seed_setting(*, section: str = INPUT_AND_OUTPUT, **more: Any) -> Any:
    """The seed of all random draws."""
    return setting(0, "Seed of every random draw.", section=section, at_least=0, metavar="N", **more)


def domain_key_setting(
    help_text: str = "Column, or key inside a column, that holds a row's domain.", *, section: str = INPUT_AND_OUTPUT
) -> Any:
    """Where a row's domain is."""
    return setting(DOMAIN_KEY, help_text, section=section, metavar="KEY")


def require_domain_has_effect(domain: str | None, domain_key: str | None) -> None:
    """Raise UsageError for a name of rows without a domain where no domain is read."""
    if domain is not None and domain_key == NO_DOMAINS:
        raise UsageError(f"--domain has no effect with --domain-key {NO_DOMAINS}, which makes one domain of all rows")


def other_tokenizer_setting(**more: Any) -> Any:
    """Rows that were made with another tokenizer than the model's: what a model makes of them means nothing."""
    return setting(False, "Accept rows that ladm prepare made with another tokenizer than the model's.", **more)


def span_tokens_setting(**more: Any) -> Any:
    """The paper's l."""
    return setting(None, "l: tokens in a span.", section=METHOD, at_least=1, metavar="L", **more)
