"""Guards and the columns they look at -> which documents are left, and what each guard dropped. Imports no torch.

Shape suffix: N documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError, UsageError
from ladm.runs.columns.by_name import stored_limit
from ladm.runs.folder import Run
from ladm.selection.profile_band import band_of, profile_with_band, require_same_layers
from ladm.settings.guards import AnyGuard, BandGuard, Guard, Limit, band_guards, parse_guard
from ladm.settings.selection import SelectSettings
from ladm.settings.value_guards import ValueGuard, ValueRange, spell_value

Floats = npt.NDArray[np.float64]


Named = str | list[str | None]
"""A value, or the lower and the upper end of a range, as the manifest has them."""


@dataclass(frozen=True, kw_only=True)
class GuardManifest:
    """A guard as the manifest repeats it, with the values that its quantiles were."""

    given: str
    column: str
    low: float | None
    high: float | None
    dropped: dict[str, int]
    """Documents outside of the limits that no earlier guard had dropped, by domain."""
    without_value: int
    """Documents, left by the earlier guards, that have no number in this column, or no value."""
    kept: list[Named] | None = None
    """The values that a guard of values keeps; None, and then not in the file, for any other guard."""
    left_out: list[Named] | None = None
    """The values that a guard of values leaves out; None as for `kept`."""
    limits_by_domain: dict[str, list[float | None]] | None = None
    """The lower and the upper limit in each domain with a value; None as for `kept`. `low` and `high` are None then."""

    @property
    def limits_text(self) -> str:
        """What it keeps, such as `gzip_ratio from 0.25 to 0.6`; of quantiles and bands the resulting values."""
        if self.kept is not None or self.left_out is not None:
            values = ", ".join(map(_spelled, self.left_out or self.kept or []))
            return f"{self.column} {'of' if self.left_out is None else 'other than'} {values}"
        if self.limits_by_domain is not None:
            return f"{self.column} {_words_of_quantiles(self.given)}"
        low, high = ("" if limit is None else f"{limit:.6g}" for limit in (self.low, self.high))
        if low and high:
            return f"{self.column} from {low} to {high}"
        return f"{self.column} of at least {low}" if low else f"{self.column} of at most {high}"


def _words_of_quantiles(given: str) -> str:
    """The limits of a guard by domain, such as `of at most the 80% quantile of each domain`."""
    guard = parse_guard(given)
    assert isinstance(guard, Guard)
    low, high = (
        limit and (f"the {100 * limit.value:g}% quantile of each domain" if limit.is_quantile else f"{limit.value:.6g}")
        for limit in (guard.low, guard.high)
    )
    if guard.low and guard.high and guard.low.is_quantile and guard.high.is_quantile:
        return f"from the {100 * guard.low.value:g}% to {high}"
    if low and high:
        return f"from {low} to {high}"
    return f"of at least {low}" if low else f"of at most {high}"


def forgotten_percent(guard: GuardManifest) -> str:
    """A hint where whole numbers may be meant as quantiles, because the guard dropped all or nothing; else no text."""
    limits = [limit for limit in (guard.low, guard.high) if limit is not None]
    is_whole = all(1 <= limit <= 100 and limit == int(limit) for limit in limits)
    # A band has no numbers as given, a guard of values no limits, and a column of the rows numbers of its own.
    is_of_run = "." not in guard.column
    if not (limits and is_whole and is_of_run) or "%" in guard.given or not any(map(str.isdigit, guard.given)):
        return ""
    return "; a quantile has a %, such as 80%"


def _spelled(value: Named) -> str:
    return spell_value(value) if isinstance(value, str) else str(ValueRange(low=value[0], high=value[1]))


def resolve_guards(settings: SelectSettings, run: Run) -> list[AnyGuard]:
    """The guards of `settings`, those of a profile's band with its limits. `run`: the first of those selected from.

    Raises UsageError for a band where there is no profile, or one that lacks a column; LadmError for a profile that
    does not fit the run.
    """
    found: list[AnyGuard] = []
    for guard in settings.guards:
        if not isinstance(guard, BandGuard):
            found.append(guard)
            continue
        path = profile_of_guards(settings, run)
        if path is None:
            raise UsageError(f"--within {guard.text} needs --profile, because RUN was not scored with one")
        found += _of_band(guard, path, settings, run)
    return found


def profile_of_guards(settings: SelectSettings, run: Run) -> str | None:
    """The file of the profile whose band a guard has; None where none has one."""
    if not any(isinstance(guard, BandGuard) for guard in settings.guards):
        return None
    path = settings.profile or run.identity.about.get("profile")
    return None if path is None else str(path)


def _of_band(guard: BandGuard, path: str, settings: SelectSettings, run: Run) -> list[Guard]:
    if guard.column is None and not settings.ranking.is_column:
        raise UsageError(
            f"--within profile needs --by to be a column, and {settings.by} is an expression; give COLUMN:profile"
        )
    ranked_by = settings.ranking.text
    profile = profile_with_band(run, path, ranked_by=guard.column or ranked_by)
    found = band_guards(guard, band_of(run, profile), ranked_by=ranked_by, profile=path)
    require_same_layers(run, profile, path, [each.column for each in found])
    return found


def apply_guards(
    guards: Sequence[AnyGuard],
    columns: Mapping[str, Floats],
    kept_N: npt.NDArray[np.bool_],
    *,
    codes_N: npt.NDArray[np.int32],
    names: Sequence[str],
    float32: Collection[str],
) -> list[GuardManifest]:
    """Clear `kept_N` where a guard drops a document; returns what each dropped.

    Quantiles are those of all documents in `columns`, or of all those of a domain, whatever other guards drop.
    `names` are the domains, `codes_N` the number of each document's domain, `float32` the columns that are stored as
    such. Of a guard of values `columns` has, by its text, 1 for a document that it keeps and 0 for others.
    Raises LadmError where no document is left.
    """
    found = []
    for guard in guards:
        values_N = columns[guard.text if isinstance(guard, ValueGuard) else guard.column]
        has_value_N = ~np.isnan(values_N)
        low = high = by_domain = None
        # A guard with one open end would otherwise keep documents without a value.
        inside_N = has_value_N.copy()
        if isinstance(guard, ValueGuard):
            inside_N &= values_N > 0
        elif guard.by_domain:
            by_domain = {}
            for code, places in _by_domain(has_value_N, codes_N):
                limits, inside = _within(guard, values_N[places], is_float32=guard.column in float32)
                by_domain[names[code]] = list(limits)
                inside_N[places] &= inside
        else:
            (low, high), inside = _within(guard, values_N, is_float32=guard.column in float32)
            inside_N &= inside
        dropped = np.bincount(codes_N[kept_N & has_value_N & ~inside_N], minlength=len(names))
        found.append(
            GuardManifest(
                given=guard.text,
                column=guard.column,
                low=low,
                high=high,
                dropped={name: int(count) for name, count in sorted(zip(names, dropped, strict=True)) if count},
                without_value=int(np.count_nonzero(kept_N & ~has_value_N)),
                limits_by_domain=by_domain,
                **_named(guard),
            )
        )
        kept_N &= inside_N
        if not kept_N.any():
            raise LadmError(f"--within {guard.text} leaves no document; {_remedy_of_nothing(guard, found[-1])}")
    return found


def _by_domain(
    has_value_N: npt.NDArray[np.bool_], codes_N: npt.NDArray[np.int32]
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The number of each domain that has a document with a value, and the places of these documents."""
    places = np.flatnonzero(has_value_N)
    codes = codes_N[places]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for part in np.split(order, starts[1:]) if len(places) else ():
        yield int(codes[part[0]]), places[part]


def _within(
    guard: Guard, values_N: Floats, *, is_float32: bool
) -> tuple[tuple[float | None, float | None], npt.NDArray[np.bool_]]:
    """The limits of a guard, whose quantiles are those of the values, and which values lie inside of them."""
    low, high = (_value(limit, values_N) for limit in (guard.low, guard.high))
    inside_N = np.ones(len(values_N), dtype=np.bool_)
    if low is not None:
        inside_N &= values_N >= _as_compared(low, guard.low, is_float32)
    if high is not None:
        inside_N &= values_N <= _as_compared(high, guard.high, is_float32)
    return (low, high), inside_N


def _remedy_of_nothing(guard: AnyGuard, limits: GuardManifest) -> str:
    if not limits.dropped:
        return f"no document that was left for it has a value of {guard.column}"
    if isinstance(guard, ValueGuard):
        return "give it other values"
    # Such as 10-90%, where 10 is a value.
    is_mixed = guard.low is not None and guard.high is not None and guard.low.is_quantile != guard.high.is_quantile
    hint = "; quantiles have a % at both ends, such as 10%-90%" if is_mixed else ""
    if limits.low is not None and limits.high is not None and limits.low > limits.high:
        return f"its lower limit, {limits.low:.6g}, is above its upper one, {limits.high:.6g}{hint}"
    ends = (limits.limits_by_domain or {}).values()
    if ends and all(low is not None and high is not None and low > high for low, high in ends):
        return f"its lower limit is above its upper one in every domain{hint}"
    return f"give it wider limits{forgotten_percent(limits)}"


def _named(guard: AnyGuard) -> dict[str, list[Named]]:
    """A guard of values as the manifest describes it."""
    if not isinstance(guard, ValueGuard):
        return {}
    values: list[Named] = [value if isinstance(value, str) else [value.low, value.high] for value in guard.values]
    return {"left_out" if guard.leaves_out else "kept": values}


def _value(limit: Limit | None, values_N: Floats) -> float | None:
    if limit is None or not limit.is_quantile:
        return None if limit is None else limit.value
    known = values_N[~np.isnan(values_N)]
    return float(np.quantile(known, limit.value)) if len(known) else float("nan")


def _as_compared(value: float, limit: Limit | None, is_float32: bool) -> float:
    """The number that values are compared with. A quantile is one of them, or lies between two, and stays."""
    return stored_limit(value) if is_float32 and limit is not None and not limit.is_quantile else value
