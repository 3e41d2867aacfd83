"""A profile and the lengths of documents -> a warning where they are not of the length it was calibrated at. No torch.

Shape suffix: N documents.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from ladm.settings.profiles import Profile


def length_warning(profile: Profile, path: str, tokens_N: npt.NDArray[Any]) -> str | None:
    """A line to print; None where all rows have the length of the profile, the file `path`."""
    others = tokens_N[tokens_N != profile.length_tokens]
    if not len(others):
        return None
    shortest, longest = int(others.min()), int(others.max())
    lengths = f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    return (
        f"{len(others):,} of {len(tokens_N):,} rows have {lengths} tokens; profile {path} was calibrated at "
        f"{profile.length_tokens:,} and was not evaluated at other lengths"
    )
