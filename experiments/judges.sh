#!/usr/bin/env bash
# usage: experiments/judges.sh OUT REWARDBENCH RM_BENCH NAME=MODEL…
#
# Judges on a RewardBench-shaped and an RM-Bench-shaped file: one response at a time with
# 16 votes, of which every smaller number and both readouts follow, and pairs in both
# orders. A NAME that begins with `scalar` is a reward model without votes.
source "$(dirname "$0")/common.sh"
out=$(realpath -m "$1") rewardbench=$(realpath "$2") rmbench=$(realpath "$3")
shift 3

# measure RESULT BENCHMARK DATA MODEL [FLAG]…: measures unless RESULT is whole.
measure() {
    local result=$1 benchmark=$2 data=$3 model=$4
    shift 4
    if [ ! -e "$result/summary.json" ]; then
        mkdir -p "$out"
        echo "$(date +%T) $result" >&2
        "$patarm" "${flags[@]}" eval "$benchmark" --data "$data" --model "$model" --out "$result" "$@" \
            --json >"$result.json" 2>"$result.log"
    fi
}

judge=(--template "${TEMPLATE:-patarm-short}" --max-tokens "${TOKENS:-48}")
for named in "$@"; do
    name=${named%%=*} model=${named#*=}
    if [[ $name == scalar* ]]; then
        measure "$out/$name.rewardbench" rewardbench "$rewardbench" "$model"
        measure "$out/$name.rmbench" rmbench "$rmbench" "$model"
    else
        measure "$out/$name.rewardbench" rewardbench "$rewardbench" "$model" "${judge[@]}" --votes "${VOTES:-16}"
        measure "$out/$name.rmbench" rmbench "$rmbench" "$model" "${judge[@]}" --votes "${VOTES:-16}"
        measure "$out/$name.pairwise" rewardbench "$rewardbench" "$model" "${judge[@]}" --mode pairwise
        measure "$out/$name.rmbench-pairwise" rmbench "$rmbench" "$model" "${judge[@]}" --mode pairwise
    fi
done
python3 "$repository/experiments/summarise.py" judges "$out"
