#!/usr/bin/env bash
# Every figure that wants a CUDA device, in at most 7 and a half minutes, most valuable first. `forward` begins with a comparison with the oracle.
#   scripts/bench/gpu.sh OUTPUT-FOLDER [PART...]     parts: tests forward signals small program short sweep score; default: all but tests and score
# Each part has a time limit of its own, prints its results as they come, and does not stop the others by failing.
# Works where torch, triton, transformers, numpy and xxhash are installed. More is needed by `tests` (pytest, pytest-xdist,
# hypothesis, click) and by `program` and `short` (the packages of `ladm score`, among them datasets, duckdb and pyarrow): a part
# that lacks one is left out with a line that names it. liger-kernel, flash-attn, kernels and flash-attn-4 are measured where they
# are installed.
#   tests     the kernels on this device; minutes, in which each is compiled       forward   the pass at 32,768 tokens: fused, columns, attention kernels, compiled
#   signals   what context gain and LongAttn add to the pass of CDS, at 32,768 tokens
#   small     rows of 4,096 tokens with the shape of SmolLM2-135M, several at a time, by --record
#   program   the whole of `ladm score`           short     the same with short rows and --record forms
#   sweep     lengths and strides; LENGTHS=131072 for others      score     beside the released way, minutes at 32,768 tokens
# LIMIT is the number of seconds for all parts together: a part gets what is left, up to its own limit.
#   MODEL=FOLDER adds the error by layer on the weights of that model. SHAPE, DEVICE and TOKENS are for trying it out.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: $0 OUTPUT-FOLDER [PART...]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1"); shift
parts=${*:-forward signals small program short sweep}
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3} device=${DEVICE:-cuda:0} shape=${SHAPE:-tinyllama} tokens=${TOKENS:-32768} dtype=${DTYPE:-bfloat16}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export HF_HUB_DISABLE_PROGRESS_BARS=1 TQDM_DISABLE=1
unset PYTHONDONTWRITEBYTECODE  # or each of the many processes compiles torch and transformers again
failed=0 total=${LIMIT:-450}
limited() { # seconds command...: at most this many seconds, and no more than are left for all parts
    local most=$1 left=$((total - SECONDS)); shift
    [ "$left" -ge 15 ] || { echo "no time left"; return 1; }
    timeout "$((left < most ? left : most))" "$@"
    local code=$?
    [ "$code" -ne 124 ] || echo "stopped after its $((left < most ? left : most)) s"
    return "$code"
}
lacks() { # module...: print those that are not installed; false where there are none
    "$python" -c 'import importlib.util as i, sys
lacking = [name for name in sys.argv[1:] if i.find_spec(name) is None]
print(*lacking)
sys.exit(not lacking)' "$@"
}
for part in $parts; do
    case $part in
        tests) needs="pytest xdist hypothesis click" ;;
        program | short) needs="datasets duckdb pyarrow yaml xxhash tqdm" ;;
        *) needs="torch transformers numpy xxhash" ;;
    esac
    # shellcheck disable=SC2086 - one word a module
    if lacking=$(lacks $needs); then
        echo "== $part is left out: not installed: $lacking" | tee -a "$out/log.txt"
        continue
    fi
    echo "== $part, after $SECONDS s"
    case $part in
        # Without the interpreter the Triton tests run their kernels on the device.
        tests) TRITON_INTERPRET=0 limited 400 "$python" -m pytest -q -rf -p no:benchmark -W ignore::pytest.PytestConfigWarning -m 'not slow' -n "${PYTEST_WORKERS:-6}" \
                   tests/modeling/test_fused.py tests/method/test_attention.py tests/method/test_kernels.py tests/method/test_focus_columns.py ;;
        forward) limited 230 "$python" scripts/bench/forward.py --shape "$shape" --tokens "$tokens" --device "$device" \
                   --dtype "$dtype" --short-tokens "${SHORT_TOKENS:-2048}" --output "$out/forward.jsonl" ${FORWARD_OPTIONS:-} ;;
        signals) limited 100 "$python" scripts/bench/signals.py --shape "$shape" --tokens "$tokens" --device "$device" \
                   --dtype "$dtype" --repeats 3 --contenders "cds, suffix" "cds, blocks" "cds, longattn" \
                   --output "$out/signals.json" ;;
        small) limited 60 "$python" scripts/bench/forward.py --shape "${SMALL_SHAPE:-smollm2}" --tokens "${SMALL_TOKENS:-4096}" \
                   --device "$device" --dtype "$dtype" --parts batches --short-tokens "${SMALL_TOKENS:-4096}" \
                   --batch-tokens "${SMALL_BATCH_TOKENS:-131072}" --records layers heads forms --output "$out/small.jsonl" ;;
        program) limited 130 "$python" scripts/bench/program.py --shape "$shape" --tokens "$tokens" --device "$device" \
                   --dtype "$dtype" --documents "${DOCUMENTS:-48}" --batch-size 1 --output "$out/program.json" ;;
        short) limited 130 "$python" scripts/bench/program.py --shape "$shape" --tokens $((tokens / 8)) --device "$device" \
                   --dtype "$dtype" --documents "${SHORT_DOCUMENTS:-96}" --record forms --output "$out/short.json" ;;
        sweep) limited 125 "$python" scripts/bench/sweep.py --shape "$shape" --device "$device" --dtype "$dtype" \
                   --repeats 3 --gate-tokens $((tokens / 4)) --lengths ${LENGTHS:-4096 8192 16384 65536} --stride-tokens "$tokens" --output "$out/sweep.jsonl" ;;
        score) limited 300 "$python" scripts/bench/score.py --shape "$shape" --tokens "$tokens" --device "$device" \
                   --dtype "$dtype" --output "$out/score.json" ;;
        *) echo "no part $part; there are tests, forward, signals, small, program, short, sweep, score" >&2; exit 2 ;;
    esac > >(tee -a "$out/log.txt") 2>&1
    [ $? -eq 0 ] || { echo "$part failed" >&2; failed=1; }
done
if [ -n "${MODEL:-}" ]; then
    limited 120 "$python" scripts/bench/forward.py --model "$MODEL" --tokens 8192 --device "$device" --parts error \
        --output "$out/error.jsonl" || failed=1
fi
echo "== done after $SECONDS s"
exit $failed
