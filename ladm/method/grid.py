"""A document's length and the method's settings -> the spans J that are scored, and the earlier spans I_j of each.

These are the index sets of equations 3 and 5 of LADM (arXiv 2503.02502); `focus.py` has the equations. No torch here.

A document of T tokens is cut into N = T // l spans of l tokens, counted from its end; the T mod l tokens in front
belong to no span. Worked example, released: T = 51, l = 4, m = 1, n = d_afs = d_cds = 2, n0 not given. N = 12 and 3
tokens stay in front, so span 0 is tokens 3-6 and span 9 is tokens 39-42. Scored, from the last span downwards in steps
of d_cds: J = 11, 9; span 7 begins at token 31, which is not beyond (m + 4 d_afs) l = 36. Span 9 is compared with
9-n = 7, then with every d_afs-th earlier span down to m: I_9 = 1, 3, 5, 7 and I_11 = 1, 3, 5, 7, 9.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ladm.errors import LadmError, require_whole_number

Variant = Literal["released", "paper"]
Ablation = Literal["none", "no-std", "no-length"]
FocusKind = Literal["plain", "value"]
"""PFS as in equation 2; or with the attention to each key multiplied by the relative norm of its value vector."""

PAPER_N0_SPANS = 16


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which spans of a document are scored, and against which earlier spans.

    `J[row]` is a scored span and `I[row]` are the earlier spans it is compared with, ascending.
    An empty `J` means that the document is too short to be scored.

    `I` holds ranges, not numbers: 4,096 spans may have 8 million pairs, and a grid is made for each length of rows.
    """

    T: int
    l: int  # the paper's letter for the tokens of a span
    variant: Variant
    J: tuple[int, ...]
    I: tuple[range, ...]  # the paper's letter for the spans compared with
    d_afs: int

    @property
    def N(self) -> int:
        """Number of whole spans."""
        return self.T // self.l

    def start(self, span: int) -> int:
        """Position of the first token of `span`."""
        return self.T - (self.N - span) * self.l

    def tokens(self, span: int) -> slice:
        """Positions of the tokens of `span`."""
        return slice(self.start(span), self.start(span) + self.l)


NEEDS_EARLIER_SPANS = "n must be at least 1 in the released variant, whose nearest span is j-n"
"""With n = 0 span j would be one of its own earlier spans, and PFS(j, j) would count tokens after the query."""

_LEAST = {"span_tokens": 1, "m": 0, "n": 0, "n0": 0, "d_afs": 1, "d_cds": 1}
"""The least value of each number of a method."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """The eight values that say what is computed; every other setting only says how. Defaults: the released code.

    Which spans: `span_tokens` (l), `m`, `n`, `n0`, `d_afs`, `d_cds`. Which equations: `variant`, `ablation`.
    Raises LadmError for a variant or an ablation that does not exist, for a value that is no whole number or too small,
    and for an n of 0 in the released variant.
    """

    variant: Variant = "released"
    """`released`: what the published code computes; `paper`: equations 2-5 as printed."""
    span_tokens: int = 128
    """l, tokens in a span."""
    m: int = 1
    """Spans at the start of a document that are never used as earlier spans."""
    n: int = 4
    """The nearest earlier span is j-n (released) or j-n-1 (paper)."""
    n0: int | None = None
    """No span before it is scored; None: the released lower bound, in the paper's variant 0."""
    d_afs: int = 4
    """Stride over the earlier spans of a scored span."""
    d_cds: int = 4
    """Stride over the scored spans."""
    ablation: Ablation = "none"
    """`no-std` drops sigma, `no-length` both length weights."""

    def __post_init__(self) -> None:
        # Any other word would silently mean the released variant, or no ablation.
        for name, kind in (("variant", Variant), ("ablation", Ablation)):
            if getattr(self, name) not in get_args(kind):
                raise LadmError(f"no {name} {getattr(self, name)!r}; choose from {', '.join(get_args(kind))}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if (name, value) != ("n0", None):
                require_whole_number(name, value, least=least)
        if self.variant == "released" and self.n == 0:
            raise LadmError(NEEDS_EARLIER_SPANS)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Method:
        """The method in a larger dictionary, such as the settings of a run. Raises KeyError for a missing value."""
        return cls(**{name: values[name] for name in METHOD_FIELDS})

    def as_dict(self) -> dict[str, Any]:
        """The eight values by name, as `run.json` and profiles hold them."""
        return asdict(self)

    def grid(self, T: int) -> Grid:
        """The spans J and I_j of equations 3 and 5 for a document of `T` tokens.

        paper:    J = n0, n0+d_cds, .. <= N-1      I_j = m, m+d_afs, .. <= j-n-1
        released: J = N-1, N-1-d_cds, ..           I_j = j-n, j-n-d_afs, .. >= m
                  while j >= n0, or, where n0 is not given, while the first token of span j lies beyond
                  token (m + 4 d_afs) l
        In the paper's variant an n0 that is not given is 0; the value that the paper uses is the default of the
        setting.

        A span with a single earlier span has no sigma and is left out, unless sigma is not used.
        """
        l, m, n, n0 = self.span_tokens, self.m, self.n, self.n0
        N = T // l
        # For T = 1,000 and l = 100 (so N = 10), with m = 1, n = 2, both strides 2:
        #   paper, n0 = 4:    J = 6, 8           I_8 = 1, 3, 5      (from m upwards, at most j-n-1; I_4 = 1 is too few)
        #   released, n0 = 4: J = 5, 7, 9        I_9 = 1, 3, 5, 7   (from j-n downwards, at least m)
        if self.variant == "paper":
            scored = range(n0 or 0, N, self.d_cds)
            earlier = {j: range(m, j - n, self.d_afs) for j in scored}
        else:
            front = T - N * l
            last = (m + 4 * self.d_afs) * l
            scored = range(N - 1, -1, -self.d_cds)
            kept = [j for j in scored if (front + j * l > last if n0 is None else j >= n0)]
            earlier = {j: range(j - n, m - 1, -self.d_afs)[::-1] for j in reversed(kept)}
        fewest = 1 if self.ablation == "no-std" else 2
        J = tuple(j for j, spans in earlier.items() if len(spans) >= fewest)
        return Grid(T=T, l=l, variant=self.variant, J=J, I=tuple(earlier[j] for j in J), d_afs=self.d_afs)


TARGET_SPANS = 256
"""Spans in a document, from which the default span length follows: the published 128 tokens at 32,768."""


def default_span_tokens(length_tokens: int) -> int:
    """Tokens of a span for documents of that length, where none is given."""
    return max(1, length_tokens // TARGET_SPANS)


METHOD_FIELDS = tuple(field.name for field in fields(Method))


def span_grid(
    T: int,
    *,
    variant: Variant,
    l: int,
    m: int,
    n: int,
    n0: int | None,
    d_afs: int,
    d_cds: int,
    ablation: Ablation = "none",
) -> Grid:
    """`Method.grid` with the paper's letters for the settings. Raises LadmError as `Method` does."""
    method = Method(variant=variant, span_tokens=l, m=m, n=n, n0=n0, d_afs=d_afs, d_cds=d_cds, ablation=ablation)
    return method.grid(T)
