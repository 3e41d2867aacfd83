"""`RUN/inspected/POSITION.json`: where the score of one document comes from. Imports no torch.

`ladm inspect` writes such files and `ladm report` shows them; the keys of a file are the fields below, after `format`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, StorageError, one_line
from ladm.storage.files import write_whole
from ladm.storage.json_object import json_with_checksum, read_json_object

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """A layer or head behind the score, which is the sum of `weight` x `cds` over all of them."""

    name: str
    """Such as `L14`, or `L14H3` for a head."""
    cds: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class SpanText:
    """The tokens of a span. `weights` is what each adds to the score; without a tokenizer there are no texts."""

    first_token: int
    tokens: list[str]
    weights: list[float]
    before: str
    after: str

    @property
    def text(self) -> str:
        """The text of the span; empty without a tokenizer."""
        return "".join(self.tokens)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SpanText:
        """The span with this content. Raises as `InspectedDocument.from_json`."""
        return cls(
            first_token=int(content["first_token"]),
            tokens=[str(text) for text in content["tokens"]],
            weights=[float(weight) for weight in content["weights"]],
            before=str(content["before"]),
            after=str(content["after"]),
        )


@dataclass(frozen=True, kw_only=True)
class SpanPair:
    """A scored span `j` and an earlier span `i`: what the pair adds to the score, its PFS, and both texts."""

    j: int
    i: int
    part: float
    pfs: float
    later: SpanText
    earlier: SpanText

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SpanPair:
        """The pair with this content. Raises as `InspectedDocument.from_json`."""
        return cls(
            j=int(content["j"]),
            i=int(content["i"]),
            part=float(content["part"]),
            pfs=float(content["pfs"]),
            later=SpanText.from_json(content["later"]),
            earlier=SpanText.from_json(content["earlier"]),
        )


@dataclass(frozen=True, kw_only=True)
class InspectedDocument:
    """A document and the decomposition of its score."""

    made_with: dict[str, str]
    """Precision, focus backend and kind of device of the inspection."""
    position: int
    """Row number in the data set."""
    index: int | str
    chunked_index: int | str | None
    num_tokens: int
    score: float
    """As in the run."""
    score_here: float
    """As computed by the inspection, perhaps on other hardware."""
    span_tokens: int
    first_token: int
    """Position of the first token that belongs to a span."""
    columns: list[ScoreColumn]
    j: list[int]
    """The scored spans, in order."""
    i: list[list[int]]
    """For each scored span the earlier spans that it is compared with, in order."""
    pfs: list[list[float]]
    """For each of those pairs its PFS, averaged over the columns by their weights."""
    part: list[list[float]]
    """For each pair what it adds to the score. The sum of all parts is the score."""
    excerpt: str
    """The beginning of the text; empty without a tokenizer."""
    pairs: list[SpanPair]
    """Those that add the most."""

    def share(self, pair: SpanPair) -> float:
        """How much of the score as computed here comes from the pair."""
        # A score of 0 has no shares.
        return pair.part / self.score_here if self.score_here else 0.0

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> InspectedDocument:
        """The document with this content.

        Raises KeyError, TypeError, ValueError or OverflowError for content that is incomplete or contradicts itself.
        """
        # Converted, not just read: what passes here is a number or a text wherever the page expects one.
        found = cls(
            made_with={str(name): str(value) for name, value in content["made_with"].items()},
            position=int(content["position"]),
            index=content["index"],
            chunked_index=content["chunked_index"],
            num_tokens=int(content["num_tokens"]),
            score=float(content["score"]),
            score_here=float(content["score_here"]),
            span_tokens=int(content["span_tokens"]),
            first_token=int(content["first_token"]),
            columns=[
                ScoreColumn(name=str(column["name"]), cds=float(column["cds"]), weight=float(column["weight"]))
                for column in content["columns"]
            ],
            j=[int(span) for span in content["j"]],
            i=[[int(span) for span in spans] for spans in content["i"]],
            pfs=_numbers(content["pfs"]),
            part=_numbers(content["part"]),
            excerpt=str(content["excerpt"]),
            pairs=[SpanPair.from_json(pair) for pair in content["pairs"]],
        )
        found._require_consistent()
        return found

    def _require_consistent(self) -> None:
        # The page computes with all of this, and a file may have been edited or come from elsewhere.
        shape = [len(spans) for spans in self.i]
        if not self.j or not all(shape) or len(shape) != len(self.j):
            raise ValueError("not every scored span has earlier spans")
        if shape != [len(parts) for parts in self.part] or shape != [len(values) for values in self.pfs]:
            raise ValueError("not every pair has a part and a PFS")
        if not all(math.isfinite(x) for x in itertools.chain(*self.part, *self.pfs)):
            raise ValueError("a part or a PFS is not a finite number")
        for j, spans in zip(self.j, self.i, strict=True):
            if spans != sorted(set(spans)) or spans[0] < 0 or spans[-1] >= j:
                raise ValueError("its earlier spans are out of order")
        end = self.first_token + (max(self.j) + 1) * self.span_tokens
        if self.j != sorted(set(self.j)) or self.span_tokens < 1 or end > self.num_tokens:
            raise ValueError("its scored spans are out of order or end after the last token")


def _numbers(lists: list[list[Any]]) -> list[list[float]]:
    return [[float(value) for value in values] for values in lists]


def write_inspected(path: Path, document: InspectedDocument) -> None:
    """Write the file, whole or not at all."""
    # NaN is not JSON, and here it would be a bug.
    write_whole(path, [json_with_checksum(document.to_json())])


def read_inspected(path: Path) -> InspectedDocument:
    """Read a file. Raises LadmError for one of another version of ladm, StorageError for a damaged one."""
    content = read_json_object(path)
    if content.get("format") != FORMAT:
        raise LadmError(f"{path} was made by another version of ladm; remove it, or run ladm inspect again")
    try:
        return InspectedDocument.from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise StorageError(
            f"{path} is damaged: {type(error).__name__}: {one_line(error)}; remove it, or run ladm inspect again"
        ) from None
