#!/usr/bin/env bash
# Scores the judging rows with a model: everything that report.py reads. No network; a stopped part goes on when called again.
#   scripts/bench/quality/score.sh DOCUMENTS.parquet MODEL-FOLDER OUT [PART...]
# OUT/NAME-OF-MODEL/PART/{run.json,scores.parquet} is what a finished part leaves; rows and unfinished runs are under WORK
# (default OUT/work: they resume where that folder still is). Parts, in the order of their worth:
#   4096       both halves, all kinds, spans of 16, single heads: calibration and the main table
#   4096-128   half 1, a few kinds, spans of 128: the rank correlation between two spans
#   8192       half 1, all kinds, spans of 32, single heads
#   8192-128   as 4096-128
#   2048       half 1, all kinds, spans of 8, single heads
#   2048-64    as 4096-128, but spans of 64: those of 128 leave nothing to score in 2,048 tokens
#   4096-paper half 1, all kinds, spans of 16, the paper's variant
#   2048-prolong  ProLong alone, of PROLONG_ROWS rows of each kind of half 1 and PROLONG_PAIRS pairs of segments of each
# SIGNALS: what is computed of the rows (default: cds,text). MOST: at most that many rows of each kind, spread over the
# packages (default: all). FEW=1: a few kinds and no single heads in every part. LIMIT: seconds for all parts together;
# PART_LIMIT: for one (default: none). For trying it out: DEVICE, DTYPE, PYTHON, DOCUMENTS (the first N of a half), other
# lengths as parts, CALIBRATED (the one with both halves).
set -uo pipefail
[ $# -ge 3 ] || { echo "usage: $0 DOCUMENTS.parquet MODEL-FOLDER OUT [PART...]" >&2; exit 2; }
pack=$(realpath "$1") model=$(realpath "$2"); mkdir -p "$3"
out=$(realpath "$3")/$(basename "$model"); shift 3
parts=${*:-4096 4096-128 8192 8192-128 2048 2048-64 4096-paper}
cd "$(dirname "$0")/../../.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export HF_DATASETS_DISABLE_PROGRESS_BARS=1
python=${PYTHON:-python3} work=${WORK:-$out/work} device=${DEVICE:-auto} dtype=${DTYPE:-float32} failed=0 calibrated=${CALIBRATED:-4096}
total=${LIMIT:-1000000} most=${PART_LIMIT:-1000000}
mkdir -p "$out" "$work"
# Layers with a sliding window see no distant text, and `ladm score` refuses them.
layers=$("$python" -c "import sys; from ladm.modeling.facts import model_facts; f = model_facts(sys.argv[1])
print(','.join(str(k) for k in range(f.num_layers) if k not in f.windowed))" "$model") || exit 1
limited() { # command...: no longer than a part may take, and than what is left; an interrupt lets ladm seal what it has
    local left=$((total - SECONDS))
    [ "$left" -ge 15 ] || { echo "no time left"; return 1; }
    timeout --signal=INT --kill-after=20 "$((left < most ? left : most))" "$@"
}
for part in $parts; do
    length=${part%%-*} rows=$work/rows-$part run=$work/run-$part which=(--half 1)
    options=(--layers "$layers" --signals "${SIGNALS:-cds,text}")
    case $part in
        *-prolong) which=(--half 1 --most "${PROLONG_ROWS:-20}")
            options=(--signals prolong --prolong-pairs "${PROLONG_PAIRS:-40}") ;;
        "$calibrated") options+=(--record heads) which=() ;;
        *-paper) options+=(--variant paper) ;;
        *-*) which=(--half 1 --few) options+=(--span-tokens "${part##*-}") ;;
        *) if [ "${FEW-}" ]; then which+=(--few); else options+=(--record heads); fi ;;
    esac
    [ -e "$out/$part/scores.parquet" ] && { echo "== $part is finished"; continue; }
    echo "== $part, after $SECONDS s"
    limited "$python" scripts/bench/quality/rows.py make "$pack" --model "$model" --length "$length" "${which[@]}" \
        ${DOCUMENTS:+--documents "$DOCUMENTS"} ${MOST:+--most "$MOST"} --output "$rows" &&
    limited "$python" -m ladm score "$rows" --model "$model" --device "$device" --dtype "$dtype" "${options[@]}" \
        --output "$run" &&
    mkdir -p "$out/$part" && cp "$run/run.json" "$out/$part/" && cp "$run/scores.parquet" "$out/$part/.partial" &&
    mv "$out/$part/.partial" "$out/$part/scores.parquet" && rm -rf "$run" "$rows" || { echo "$part is not finished" >&2; failed=1; }
done
echo "== done after $SECONDS s"
exit $failed
