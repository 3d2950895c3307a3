#!/usr/bin/env bash
# usage: experiments/scoring_cost.sh OUT SAMPLES
#
# What a score costs: `patarm score` on the held-out pairs of SAMPLES (a set's folder as
# families.sh makes it), one model of every family, each trained for two updates only, since
# its cost does not depend on what it has learnt. A judge's does: it gets its cold start.
# Prints milliseconds a response, less what the same command takes for one pair.
# THREADS is the threads of a run, PAIRS how many pairs are scored.
source "$(dirname "$0")/common.sh"
out=$(realpath -m "$1") samples=$(realpath "$2")
flags+=(--precision f32 --threads "${THREADS:-1}")
common=("data.train=$samples/train.jsonl" "data.held_out=$samples/held_out.jsonl" "data.max_prompt_tokens=128"
    "data.max_response_tokens=96" "evaluation.every=0" "evaluation.pairs=0" "evaluation.stage_pairs=0"
    "checkpoint.every=100")
mkdir -p "$out"
head -n 1 "$samples/held_out.jsonl" >"$out/one.jsonl"
head -n "${PAIRS:-300}" "$samples/held_out.jsonl" >"$out/scored.jsonl"

# seconds MODEL INPUT: how long scoring takes.
seconds() {
    local started scores=$out/scores.jsonl
    rm -f "$scores"
    started=$(date +%s.%N)
    "$patarm" "${flags[@]}" score --model "$1" --input "$2" --out "$scores" >/dev/null 2>"$out/score.log"
    echo "$(date +%s.%N) $started" | awk '{ print $1 - $2 }'
}

# cost NAME MODEL: a row of the table.
cost() {
    local whole one pairs
    one=$(seconds "$2" "$out/one.jsonl")
    whole=$(seconds "$2" "$out/scored.jsonl")
    pairs=$(wc -l <"$out/scored.jsonl")
    echo "$1 $whole $one $pairs" | awk '{ printf "| %s | %.1f |\n", $1, 1000 * ($2 - $3) / (2 * ($4 - 1)) }'
}

for family in bradley_terry soli_reward oprm q_rm; do
    changes=("${common[@]}" "$family.schedule.steps=2")
    if [ "$family" = soli_reward ]; then
        changes+=("data.train=$samples/soli_reward.jsonl")
    fi
    train_once "$out/$family" "$repository/recipes/$family.toml" "${changes[@]}"
done
MODEL="" train_once "$out/ebrm" "$repository/recipes/ebrm.toml" "${common[@]}" "ebrm.schedule.epochs=1" \
    "model=$out/bradley_terry/checkpoints/final"
train_once "$out/patarm" "$repository/recipes/hh_rlhf.toml" "${common[@]}" "parameters.freeze_below=18" \
    "cold_start.steps=16" "grpo.steps=1" "grpo.pairs=4"
cat >"$out/ensemble.toml" <<END
version = 1
members = ["$out/bradley_terry", "$out/bradley_terry", "$out/bradley_terry"]
END

echo "| family | ms a response |"
echo "|---|---|"
for family in bradley_terry soli_reward oprm q_rm ebrm patarm; do
    cost "$family" "$out/$family"
done
cost ensemble_of_three "$out/ensemble.toml"
