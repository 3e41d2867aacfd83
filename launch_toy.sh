#!/usr/bin/env bash
# The whole pipeline on a laptop, in minutes: 32 real documents, a 135M-parameter model, no GPU and no Hub.
#
#   ./launch_toy.sh              ladm run, compare with toy_scores.json, and an HTML page of the run
#   ./launch_toy.sh --published  the authors' toy data and calculator from the Hub, compared with the
#                                scores they publish (a GPU and about 5 GB of downloads)
#
# Leaves runs/toy/{model,rows,scores,subset,rescored,guarded,report.html,job.yaml}. It may be stopped at any moment; the same command resumes it.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/env.sh

if [ "${1-}" = --published ]; then
    out=${LADM_OUTPUT:-runs/published}
    ladm score "${LADM_ROWS:-UltraRonin/pile-LlamaTokenizerFast-32k-truncated-toy}" \
        --model "${LADM_MODEL:-UltraRonin/Long-Attn-Calculator}" --config "${LADM_CONFIG:-configs/published.yaml}" \
        --output "$out/scores"
    exec python scripts/compare_scores.py "$out/scores" "${LADM_EXPECTED:-tests/data/published_toy_scores.jsonl}" \
        --relative 2e-2 --spearman 0.99
elif [ $# -gt 0 ]; then
    echo "usage: ./launch_toy.sh [--published]" >&2
    exit 2
fi

toy=runs/toy
mkdir -p $toy
export HF_HUB_OFFLINE=1
python scripts/toy/fetch_model.py $toy/model

# documents -> rows of 4,096 tokens -> scores -> the best of every domain, 64,000 tokens of 131,072; a finished job is
# removed and made again, a stopped one is resumed (and not timed)
if [ -f $toy/subset/manifest.json ]; then rm -rf $toy/rows $toy/scores $toy/subset $toy/job.yaml $toy/report.html; fi
if [ ! -f $toy/job.yaml ]; then timed=yes; fi
# two processes that share the cores are faster than one that has them all, and need 1.5 GB each
workers=$(python -c 'from ladm.cores import available_cores; print(min(2, available_cores()))')
started=$SECONDS
exec 3>&2
TIMEFORMAT='%U %S'
{ time ladm run ladm/data/documents.jsonl.gz --model $toy/model --length 4096 --tokens 64k --id-key meta.title --config configs/toy.yaml \
    --workers "$workers" --output $toy 2>&3; } 2> $toy/cpu-seconds
if [ "${timed-}" ]; then set -- --seconds $((SECONDS - started)) --cpu-seconds "$(cat $toy/cpu-seconds)"; fi

# the robust score from the stored layers, and the best quarter by it inside the band of intact documents, which
# `ladm calibrate` found on other documents; no model runs. One domain for all, because some of the toy's are bad throughout
rm -rf $toy/rescored $toy/guarded
ladm rescore $toy/scores --score robust --output $toy/rescored
profile=configs/profiles/smollm2-135m-guarded.yaml
guards=(profile gzip_ratio:profile unigram_entropy:profile repeated_4grams:profile repeated_13grams:profile digits:profile)
ladm select $toy/rescored --rows $toy/rows --documents 8 --allow-small-pool --by robust "${guards[@]/#/--within=}" \
    --profile $profile --domain-key none --output $toy/guarded

# where the scores of the best two documents and of the worst come from, every column, and what the guards left: an HTML page
ladm inspect $toy/rescored --top 2 --bottom 1 > /dev/null
ladm report $toy/rescored --subset $toy/guarded --domain-key none --output $toy/report.html > /dev/null

echo
python scripts/toy/report.py $toy/rows $toy/scores --guarded $toy/guarded --model $toy/model --workers "$workers" "$@"
python scripts/compare_scores.py $toy/scores toy_scores.json --relative 1e-3 --same-order
echo "page: $toy/report.html (open it in a browser)"
