"""What `layers.py` measured, and profiles -> how well each score separates intact from pasted documents and lists.

    python scripts/bench/profiles.py runs/bench/out/smollm2-4096.jsonl --form 16 \\
        --profile configs/profiles/smollm2-135m.yaml --output scripts/bench/results/profiles-smollm2-4096.json

AUC against each kind with its 95 % interval (bootstrap over documents), and the gain over the median (with sigma and
without) and the mean with the paired interval. Profiles choose layers on other documents; `--late` names a choice that
needs none. `--form` is a span as measured, such as 16 or 128.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from error_lines import errors_in_a_line

from ladm.calibration.estimates import Estimate, PairwiseWins, auc, estimate, wins
from ladm.errors import LadmError
from ladm.method.reduction import reduce_cds
from ladm.settings.profiles import read_profile

SEED = 7


class Measurement:
    """The lines of one file of `layers.py`. Raises LadmError for another file, and for a form that it lacks."""

    def __init__(self, path: Path, form: str) -> None:
        try:
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            self._read([json.loads(line) for line in content.splitlines()])
        except (OSError, ValueError, LookupError, TypeError):
            raise LadmError(f"{path} is not what layers.py writes") from None
        forms = [name for name in self._cds[0] if name != "heads" and not name.endswith(" no-std")]
        if form not in forms:
            raise LadmError(f"{path} has no --form {form}; it has {', '.join(forms)}")
        self.form = form

    def _read(self, lines: list[dict[str, Any]]) -> None:
        self.layers = tuple(lines[0]["layers"])
        self.kinds = np.array([line["kind"] for line in lines])
        self.domains = np.array([line["domain"] for line in lines])
        self.documents = np.array([line["document"] for line in lines])
        self._cds = [line["cds"] for line in lines]

    def by_layer(self, *, sigma: bool) -> np.ndarray:
        name = self.form if sigma else f"{self.form} no-std"
        return np.array([cds[name] for cds in self._cds])

    def by_head(self) -> np.ndarray:
        return np.array([np.ravel(cds["heads"]) for cds in self._cds])


def scores(data: Measurement, profiles: list[str], *, late: int | None) -> dict[str, np.ndarray]:
    """One number a row for each way of scoring."""
    found = {
        "mean": reduce_cds(data.by_layer(sigma=True), "mean"),
        "median": reduce_cds(data.by_layer(sigma=True), "median"),
        "mean, no-std": reduce_cds(data.by_layer(sigma=False), "mean"),
        "median, no-std": reduce_cds(data.by_layer(sigma=False), "median"),
    }
    if late is not None:
        columns = [k for k, layer in enumerate(data.layers) if layer >= late]
        found[f"mean, no-std, layers {late} on"] = reduce_cds(data.by_layer(sigma=False)[:, columns], "mean")
    for path in profiles:
        profile = read_profile(path)
        reduction, sigma = profile.reduction, profile.method.ablation == "none"
        if reduction.heads is not None and not sigma:
            sys.exit(f"{path}: single heads were measured with sigma only")
        values = data.by_layer(sigma=sigma) if reduction.heads is None else data.by_head()
        heads = None if reduction.heads is None else values.shape[1] // len(data.layers)
        chosen = reduction.columns(data.layers, num_heads=heads)
        found[Path(path).stem] = reduce_cds(values[:, chosen], reduction.how, reduction.weights)
    return found


def sigma_ratio(data: Measurement, intact: np.ndarray, kinds: list[str]) -> dict[str, dict[str, list[float]]]:
    """By layer, does log(CDS with sigma / CDS without) separate intact documents from kinds that CDS alone does not?

    `higher`: AUC of the ratio itself; `nearer`: of being nearer to the median ratio of the intact ones.
    """
    ratio = np.log(data.by_layer(sigma=True)) - np.log(data.by_layer(sigma=False))
    near = -np.abs(ratio - np.median(ratio[intact], axis=0))
    return {
        kind: {
            label: [round(auc(x[intact, k], x[data.kinds == kind, k]), 4) for k in range(len(data.layers))]
            for label, x in (("higher", ratio), ("nearer", near))
        }
        for kind in kinds
    }


def rounded(found: Estimate) -> list[float]:
    return [round(number, 4) for number in (found.value, found.low, found.high)]


@click.command(help=__doc__.splitlines()[0])
@click.argument("measured", type=click.Path(path_type=Path, exists=True))
@click.option("--form", required=True, help="Span tokens, as measured.")
@click.option("--profile", "profiles", multiple=True)
@click.option("--late", type=int, help="Also the mean without sigma over this layer and all later ones.")
@click.option("--output", type=click.Path(path_type=Path))
def main(measured: Path, form: str, profiles: tuple[str, ...], late: int | None, output: Path | None) -> None:
    data = Measurement(measured, form)
    by_name = scores(data, list(profiles), late=late)
    intact = data.kinds == "intact"
    kinds = [kind for kind in dict.fromkeys(data.kinds.tolist()) if kind != "intact"]
    counts = {kind: int((data.kinds == kind).sum()) for kind in ("intact", *kinds)}
    result: dict[str, Any] = {"measured": measured.name, "span_tokens": form, "rows": counts, "auc": {}, "gain": {}}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    print(f"{'score':<28}" + "".join(f"{kind:<26}" for kind in kinds))
    won = {
        name: {
            kind: PairwiseWins(
                wins_AB=wins(values[intact], values[data.kinds == kind]),
                intact_A=data.documents[intact],
                rows_B=data.documents[data.kinds == kind],
            )
            for kind in kinds
        }
        for name, values in by_name.items()
    }
    for name in by_name:
        found = {kind: estimate([won[name][kind]], seed=SEED) for kind in kinds}
        result["auc"][name] = {kind: rounded(each) for kind, each in found.items()}
        print(f"{name:<28}" + "".join(f"{each!s:<26}" for each in found.values()))
    late_name = f"mean, no-std, layers {late} on"
    for over in ("median", "median, no-std", "mean", *([late_name] if late_name in by_name else [])):
        print(f"\ngain over the {over}")
        for name in by_name:
            if name != over:
                gains = {kind: estimate([won[name][kind] - won[over][kind]], seed=SEED) for kind in kinds}
                result["gain"].setdefault(over, {})[name] = {kind: rounded(each) for kind, each in gains.items()}
                print(f"{name:<28}" + "".join(f"{each!s:<26}" for each in gains.values()))
    pasted = [kind for kind in kinds if "pieces" in kind]
    result["by_layer"] = {
        label: [
            round(float(np.mean([auc(cds[intact, k], cds[data.kinds == kind, k]) for kind in pasted])), 4)
            for k in range(len(data.layers))
        ]
        for label, cds in (("with sigma", data.by_layer(sigma=True)), ("without sigma", data.by_layer(sigma=False)))
    }
    result["sigma_ratio"] = sigma_ratio(data, intact, [kind for kind in kinds if kind not in pasted])
    result["layers"] = list(data.layers)
    result["command"] = " ".join(["python", "scripts/bench/profiles.py", *sys.argv[1:]])
    line = json.dumps(result)
    if output is not None:
        output.write_text(line + "\n")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
