#!/usr/bin/env bash
# usage: experiments/stages.sh OUT [SEED]…
#
# Fine-tuning on a teacher that is right on 80 % of the prompts (kept: what agrees with
# the label), reinforcement alone from the label-free cold start, and both in turn, on
# the quickstart's pairs.
source "$(dirname "$0")/common.sh"
out=$(realpath -m "$1")
shift
seeds=("$@")
if [ $# = 0 ]; then seeds=(0 1 2); fi
recipe=$repository/recipes/quickstart.toml
shared=("evaluation.stage_pairs=${PAIRS:-220}" "checkpoint.every=0")
mkdir -p "$out"

"$patarm" data convert bundled:quickstart-train --to trl --out "$out/labels.jsonl"
port=${PORT:-8077}
python3 "$repository/examples/scripted_teacher.py" --labels "$out/labels.jsonl" --right 0.8 --port "$port" &
teacher=$!
trap 'kill $teacher' EXIT
sleep 1
source="cold_start.source={ kind = \"teacher\", model = \"openai:http://127.0.0.1:$port/v1#scripted\", judgements = 2 }"

for seed in "${seeds[@]}"; do
    train_once "$out/rl-s$seed" "$recipe" "seed=$seed" "${shared[@]}"
    drop_weights "$out/rl-s$seed"
    train_once "$out/sft-rl-s$seed" "$recipe" "seed=$seed" "${shared[@]}" "$source"
    drop_weights "$out/sft-rl-s$seed"
done
python3 "$repository/experiments/check_teacher.py" "$out/labels.jsonl" "$out"/sft-rl-s*/cold_start.jsonl
python3 "$repository/experiments/summarise.py" stages "$out"
