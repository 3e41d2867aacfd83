#!/usr/bin/env bash
# The full run of the paper: score a data set of 32,768-token rows on all visible GPUs, then select, with a page about it.
#
#   ./launch.sh ROWS OUTPUT [MODEL] [TOKENS]        or ROWS=... OUTPUT=... MODEL=... TOKENS=... ./launch.sh
#
#   ROWS    folder written by save_to_disk (ladm prepare makes one), or a Hub id
#   OUTPUT  folder for scores/, subset/, report.html and job.yaml
#   MODEL   the calculator                             default UltraRonin/Long-Attn-Calculator
#   TOKENS  budget of the selection                    default 1B
#   RULE    exact, or percent as released              default exact
#   DEVICE  auto, cpu, cuda, cuda:0,1                  default cuda: all visible
#   CONFIG  settings of the score                      default configs/paper.yaml
#
# RULE=percent TOKENS=1073741824 reproduces the authors' cut. The run may be stopped at any moment; the same command resumes
# it. For another budget from the same scores: ladm select OUTPUT/scores --tokens N -o SUBSET. Where ladm is installed already (a container, a cluster), VENV=none uses that instead of making an environment.
set -euo pipefail
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
ROWS=${1:-${ROWS:-}}
OUTPUT=${2:-${OUTPUT:-}}
MODEL=${3:-${MODEL:-UltraRonin/Long-Attn-Calculator}}
TOKENS=${4:-${TOKENS:-1B}}
[ -n "$ROWS" ] && [ -n "$OUTPUT" ] && [ $# -le 4 ] || usage
ROWS=$([ -d "$ROWS" ] && realpath "$ROWS" || echo "$ROWS")
MODEL=$([ -d "$MODEL" ] && realpath "$MODEL" || echo "$MODEL")
CONFIG=$([ -f "${CONFIG-}" ] && realpath "$CONFIG" || echo "${CONFIG:-configs/paper.yaml}")
OUTPUT=$(realpath -m "$OUTPUT")
cd "$(dirname "$0")"
. scripts/env.sh

ladm run "$ROWS" --model "$MODEL" --config "$CONFIG" --device "${DEVICE:-cuda}" \
    --tokens "$TOKENS" --rule "${RULE:-exact}" --output "$OUTPUT"
