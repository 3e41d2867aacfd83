"""The fields of a document -> what its rows carry besides text and ids: id, domain, meta and the other columns.

    {"body": "..", "id": 7, "url": "u/7", "tags": ["a"]}    with --text-key body
    id "7", columns {"url": "u/7", "tags": '["a"]'}

Imports no torch.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

from ladm.corpus.files.meta import is_missing, jsonable, plain, value_at, whole_name, whole_text
from ladm.settings.common import DOMAIN_COLUMN, DOMAIN_KEY, NO_DOMAINS

DOMAIN_NAME = "pile_set_name"
"""Where a row's meta holds its domain, as in the published data."""
ROW_COLUMNS = (
    "text", "meta", "input_ids", "index", "chunked_index", "id", "domain", "source", "document", "start_token",
    "document_tokens", "copy_of",
)  # fmt: skip
"""Columns that `prepare` makes; a document's own column of such a name gets `original_` in front."""


def parsed_meta(fields: dict[str, Any]) -> dict[str, Any] | None:
    """The document's own meta, which in published corpora is often JSON in a text; None where it is no object."""
    meta = fields.get("meta")
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except (ValueError, RecursionError):
            return None
    return jsonable(plain(meta)) if isinstance(meta, dict) else None


def domain_of(fields: dict[str, Any], meta: dict[str, Any] | None, domain_key: str) -> str | None:
    """The domain as text; None where the key leads to nothing, or to a list or object."""
    found = value_at(fields if meta is None else fields | {"meta": meta}, domain_key)
    if is_missing(found) or isinstance(found, (dict, list)):
        return None
    return whole_text(str(found))


def domain_keys_of(domain_key: str) -> tuple[str, ...]:
    """The keys under which the domain of a document is looked for, in this order.

    As `domains` does for rows, the default is followed by the column `domain`. With `none` no domain is read, so that a
    document's own field called `none` cannot be used.
    """
    if domain_key == NO_DOMAINS:
        return ()
    return (DOMAIN_KEY, DOMAIN_COLUMN) if domain_key == DOMAIN_KEY else (domain_key,)


def first_domain(
    fields: dict[str, Any], meta: dict[str, Any] | None, keys: tuple[str, ...]
) -> tuple[str, str] | tuple[None, None]:
    """The first key that leads to a domain, and the domain; twice None where none does."""
    for key in keys:
        domain = domain_of(fields, meta, key)
        if domain is not None:
            return key, domain
    return None, None


def id_of(fields: dict[str, Any], id_key: str) -> str | None:
    """The document's own id, a text, a whole number or a UUID, as text; None where it has none."""
    found = value_at(fields, id_key)
    # pandas makes a column of whole numbers one of floats as soon as one is missing, and databases such as Snowflake
    # store whole numbers as decimals.
    if isinstance(found, (float, Decimal)) and math.isfinite(found) and found.as_integer_ratio()[1] == 1:
        found = int(found)
    if not isinstance(found, (str, int, UUID)) or isinstance(found, bool):
        return None
    return whole_text(str(found))


def other_columns(fields: dict[str, Any], *, text_key: str, used: set[str]) -> dict[str, Any]:
    """Every other column of the document: scalars as they are, lists and objects as JSON text, nothing for null.

    `used`: columns that are in the row already under a name of its own.
    """
    columns: dict[str, Any] = {}
    for name, value in _without(fields, text_key).items():
        # Ids of another tokenizer would be taken for those of this one.
        if name in used or name == "input_ids" or value is None:
            continue
        column = whole_name(name)
        while column in ROW_COLUMNS or (column != name and column in fields):
            column = f"original_{column}"
        value = jsonable(plain(value))
        if value is not None:
            columns[column] = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
    return columns


def _without(fields: dict[str, Any], key: str) -> dict[str, Any]:
    """The fields without the text, which the row holds as `text`."""
    if key in fields:
        return {name: value for name, value in fields.items() if name != key}
    head, _, rest = key.partition(".")
    inner = fields.get(head)
    return fields | {head: _without(inner, rest)} if rest and isinstance(inner, dict) else fields
