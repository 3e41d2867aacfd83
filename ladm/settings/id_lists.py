"""`--exclude-ids FILE` and `--only-ids FILE`: lists of document ids that a selection leaves out, or keeps to."""

from __future__ import annotations

from typing import Any

from ladm.settings.fields import setting

EXCLUDE_IDS, ONLY_IDS = "exclude_ids", "only_ids"
_READ_LOCALLY = "copy the list to this machine and give the file"


def exclude_ids_setting(*, section: str) -> Any:
    """Files of ids of documents that are left out."""
    return setting(
        (),
        "Exclude the documents with the ids in FILE (.txt, .jsonl, .csv or .parquet), as if they did not exist; may be "
        "repeated.",
        section=section,
        metavar="FILE",
        not_an_address=_READ_LOCALLY,
    )


def only_ids_setting(*, section: str) -> Any:
    """Files of ids of the documents that are kept."""
    return setting(
        (),
        "Only documents with the ids in FILE, as if no others existed; several FILEs count together.",
        section=section,
        metavar="FILE",
        not_an_address=_READ_LOCALLY,
    )
