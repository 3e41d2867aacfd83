"""Cost against length and against strides: `score.py` again and again, one line of JSON a setting.

    python scripts/bench/sweep.py --device cuda --dtype bfloat16 --output sweep.jsonl

Lengths from 4,096 to 131,072 tokens at the paper's strides; strides (4, 4), (2, 4), (4, 2) and (2, 2) at 32,768 tokens,
for which the paper's Table 5 has 2.46, 2.47, 3.95 and 3.98 s a document. Works where `score.py` does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072)
STRIDES = ((4, 4), (2, 4), (4, 2), (2, 2))
STRIDE_TOKENS = 32768


def settings(lengths: list[int], stride_tokens: int) -> list[list[str]]:
    by_length = [["--tokens", str(tokens)] for tokens in lengths]
    by_stride = [
        ["--tokens", str(stride_tokens), "--d-afs", str(d_afs), "--d-cds", str(d_cds)] for d_afs, d_cds in STRIDES
    ]
    return by_length + by_stride


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--stride-tokens", type=int, default=STRIDE_TOKENS)
    asked, passed_on = parser.parse_known_args()
    model = [] if {"--model", "--shape"} & set(passed_on) else ["--shape", "tinyllama"]
    print(f"{'tokens':>8} {'d_afs':>5} {'d_cds':>5} {'plain s':>9} {'ladm s':>9} {'x plain':>8}")
    with asked.output.open("a") as output:
        for setting in settings(asked.lengths, asked.stride_tokens):
            command = [sys.executable, str(Path(__file__).with_name("score.py")), "--contenders", "ab"]
            done = subprocess.run([*command, *model, *passed_on, *setting], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{' '.join(setting)}: {done.stderr.strip().splitlines()[-1]}")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            output.write(json.dumps(result) + "\n")
            output.flush()
            plain, ours = (result["times"][name]["median_s"] for name in ("a plain forward", "b ladm"))
            print(
                f"{result['tokens']:>8} {result['d_afs']:>5} {result['d_cds']:>5} {plain:>9.3f} {ours:>9.3f} "
                f"{result['ratio_b_to_a']:>8.3f}"
            )


if __name__ == "__main__":
    main()
