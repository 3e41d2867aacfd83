#!/usr/bin/env bash
# Trains a small model beyond the length that it was made for: RoPE base raised, rows of 9,216 tokens instead of 8,192.
#   scripts/experiment/beyond.sh OUTPUT-DIRECTORY
# Documents: python scripts/bench/documents.py runs/bench. Model: ./launch_toy.sh makes runs/toy/model. About half an
# hour on two cores. If it is stopped, the same command resumes it.
set -euo pipefail
out=${1:?a folder for the model and the figures}
model=runs/toy/model
length=9216
mkdir -p "$out"

prepare() { ladm prepare "runs/bench/$1.jsonl.gz" --tokenizer "$model" --length "$length" --limit "$2" --output "$out/$1"; }
measure() {
    [ -s "$out/$2.json" ] || ladm evaluate perplexity --model "$1" --rows "$out/evaluation" --windows "8192,$length" \
        --documents 3 --output "$out/$2.json"
}

cat >"$out/train.yaml" <<YAML
batch_tokens: $length
learning_rate: 1.0e-4
schedule: linear
warmup_steps: 2
save_every: 4
YAML
prepare calibration 8
prepare evaluation 3
measure "$model" before
ladm train --model "$model" --rows "$out/calibration" --output "$out/trained" --tokens $((8 * length)) --rope-base 500000 \
    --config "$out/train.yaml"
measure "$out/trained" after
