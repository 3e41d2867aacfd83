"""Cost against length and against strides, in one process: one line of JSON a setting, as of `score.py`.

    python scripts/bench/sweep.py --shape tinyllama --device cuda --dtype bfloat16 --output sweep.jsonl

Lengths from 4,096 to 131,072 tokens at the paper's strides; strides (4, 4), (2, 4), (4, 2) and (2, 2) at 32,768 tokens,
for which the paper's Table 5 has 2.46, 2.47, 3.95 and 3.98 s a document. Takes the options of `score.py` too; works
where that does. Without (c): `--contenders abc` times it as well.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import score
from error_lines import errors_in_a_line
from machine import facts

LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072)
STRIDES = ((4, 4), (2, 4), (4, 2), (2, 2))
STRIDE_TOKENS = 32768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--stride-tokens", type=int, default=STRIDE_TOKENS)
    sweep, rest = parser.parse_known_args()
    command = facts("cpu")["command"]
    sys.argv = [sys.argv[0], *(["--contenders", "ab"] if "--contenders" not in rest else []), *rest]
    options = score.parse()
    settings = [(tokens, STRIDES[0]) for tokens in sweep.lengths]
    settings += [(sweep.stride_tokens, strides) for strides in STRIDES]
    print(f"{'tokens':>8} {'d_afs':>5} {'d_cds':>5} {'plain s':>9} {'ladm s':>9} {'x plain':>8}")
    with tempfile.TemporaryDirectory() as temporary, open(options.output or "/dev/null", "a") as output:
        contenders, longest = score.load(options, temporary, max(tokens for tokens, _ in settings))
        for tokens, (d_afs, d_cds) in settings:
            options.tokens = tokens
            strides = {"d_afs": d_afs, "d_cds": d_cds}
            result = facts(options.device) | {"command": command}
            result |= score.timed(options, contenders, longest[:, :tokens], strides=strides)
            output.write(json.dumps(result) + "\n")
            output.flush()
            plain, ours = (result["times"][score.NAMES[letter]]["median_s"] for letter in "ab")
            print(f"{tokens:>8} {d_afs:>5} {d_cds:>5} {plain:>9.3f} {ours:>9.3f} {result['ratio_b_to_a']:>8.3f}")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
