#!/usr/bin/env bash
# Every figure that wants a CUDA device, in about 20 minutes on a fast one: correctness first, then times.
#   scripts/bench/gpu.sh OUTPUT-FOLDER [PART...]        parts: tests score program compiled sweep; default: all
# Works where torch, triton, transformers and pytest are installed; `program` wants the packages of `ladm score` as well.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: $0 OUTPUT-FOLDER [PART...]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1"); shift
parts=${*:-tests score program compiled sweep}
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
failed=0
for part in $parts; do
    case $part in
        # Without the interpreter the Triton tests run their kernels on the device.
        tests) TRITON_INTERPRET=0 timeout 300 "$python" -m pytest -q tests/test_attention.py tests/test_kernels.py ;;
        score) timeout 400 "$python" scripts/bench/score.py --shape tinyllama --device cuda:0 --dtype bfloat16 --output "$out/gpu-tinyllama-32768-bfloat16.json" ;;
        program) timeout 400 "$python" scripts/bench/program.py --shape tinyllama --device cuda:0 --dtype bfloat16 --documents 24 --output "$out/gpu-tinyllama-32768-program.json" ;;
        compiled) timeout 300 "$python" scripts/bench/compiled.py --shape tinyllama --device cuda:0 --dtype bfloat16 --output "$out/gpu-tinyllama-32768-compiled.json" ;;
        sweep) timeout 560 "$python" scripts/bench/sweep.py --shape tinyllama --device cuda:0 --dtype bfloat16 --repeats 5 --output "$out/gpu-tinyllama-sweep.jsonl" ;;
        *) echo "no part $part; there are tests, score, program, compiled, sweep" >&2; exit 2 ;;
    esac 2>&1 | tee "$out/$part.log"
    [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "$part failed" >&2; failed=1; }
done
exit $failed
