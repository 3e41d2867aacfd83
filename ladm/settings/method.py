"""The flags of the method, equations 2-5, with defaults, ranges and help -> the method that they describe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ladm.method.grid import PAPER_N0_SPANS, Ablation, Method, Variant, default_span_tokens
from ladm.settings.common import span_tokens_setting
from ladm.settings.fields import METHOD, Settings, setting


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Settings):
    """The eight values that decide what is computed of a row; each of them changes the result."""

    variant: Variant = setting(
        Method.variant,
        "What is computed: what the published code does, or equations 2-5 as printed.",
        section=METHOD,
    )
    # None rather than 128: that leaves no span to score in rows much shorter than the published 32,768 tokens.
    span_tokens: int | None = span_tokens_setting(
        unset="T/256 of the commonest length T: 128 at 32,768",
    )
    m: int = setting(
        Method.m,
        "Spans at the start of a document that are never used as earlier spans.",
        section=METHOD,
        metavar="SPANS",
        at_least=0,
    )
    # Not 4 but None: the published code uses one number for both, so n must follow a changed d_afs.
    n: int | None = setting(
        None,
        "Nearest earlier span that span j is compared with: j-n (released), j-n-1 (paper).",
        section=METHOD,
        metavar="SPANS",
        unset="d_afs",
        at_least=0,
    )
    # The released lower bound grows with l, m and d_afs; a number here replaces it in either variant.
    n0: int | None = setting(
        None,
        "Spans before this one are not scored.",
        section=METHOD,
        metavar="SPAN",
        unset="released: the first beyond token (m + 4 d_afs) l; paper: 16",
        at_least=0,
    )
    d_afs: int = setting(
        Method.d_afs,
        "Stride over the earlier spans of a scored span.",
        section=METHOD,
        metavar="SPANS",
        at_least=1,
    )
    d_cds: int = setting(
        Method.d_cds,
        "Stride over the scored spans.",
        section=METHOD,
        metavar="SPANS",
        at_least=1,
    )
    ablation: Ablation = setting(
        Method.ablation,
        "Leave out sigma (no-std), or both length weights (no-length).",
        section=METHOD,
    )

    @property
    def method(self) -> Method:
        """What is computed, with defaults filled in: n is d_afs, and in the paper's variant n0 is 16.

        `ladm score` has set `span_tokens` by its rows; where it is still open, this is the method at 32,768 tokens.
        """
        return Method(
            variant=self.variant,
            span_tokens=Method.span_tokens if self.span_tokens is None else self.span_tokens,
            m=self.m,
            n=self.d_afs if self.n is None else self.n,
            n0=PAPER_N0_SPANS if self.n0 is None and self.variant == "paper" else self.n0,
            d_afs=self.d_afs,
            d_cds=self.d_cds,
            ablation=self.ablation,
        )

    def method_at(self, length_tokens: int) -> Method:
        """The method for rows of that length: where `span_tokens` is open, spans of a 256th of it."""
        if self.span_tokens is not None:
            return self.method
        return dataclasses.replace(self.method, span_tokens=default_span_tokens(length_tokens))
