"""A written subset -> a data set on the Hugging Face Hub, in one commit. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ladm.errors import LadmError, one_line, raise_if_out_of_memory

STORED_ROWS = ["data/train-*", "train.bin", "train.idx", "tokens.npy", "offsets.npy", "rows.parquet"]
"""Names of the files that hold a subset's rows, whatever its format."""


def push_subset(folder: Path, repository: str, *, remedy: str) -> str:
    """Upload the folder as the data set `repository`, in place of a subset there; returns the address of the commit.

    A repository that does not exist is made, private: whoever owns the documents decides whether to publish them.
    Raises LadmError, ending with `remedy`, where the Hub refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi(library_name="ladm")
    try:
        hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        # One commit holds all files, so that nobody loads a part of the subset.
        commit = hub.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type="dataset",
            commit_message="Subset selected with ladm",
            # An earlier subset of more shards would otherwise be loaded together with this one.
            delete_patterns=STORED_ROWS,
        )
    except Exception as error:
        raise_if_out_of_memory(error, action=f"push {repository}")
        # The client raises exceptions of its own, of its HTTP library, and of the operating system.
        raise LadmError(f"--push {repository}: {one_line(error)}; {remedy}") from None
    return str(commit.commit_url)
