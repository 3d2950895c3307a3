#!/usr/bin/env bash
# usage: experiments/real_preferences.sh OUT HH_FILE ULTRAFEEDBACK_FOLDER [SEED]…
#
# hh-rlhf harmless-base (the file is split by prompt) and UltraFeedback (its own training
# and evaluation files): accuracy after the cold start and after reinforcement.
source "$(dirname "$0")/common.sh"
out=$(realpath -m "$1") hh=$(realpath "$2") ultrafeedback=$(realpath "$3")
shift 3
seeds=("$@")
if [ $# = 0 ]; then seeds=(0); fi

for seed in "${seeds[@]}"; do
    train_once "$out/hh-s$seed" "$repository/recipes/hh_rlhf.toml" "seed=$seed" "data.train=$hh"
    train_once "$out/ultrafeedback-s$seed" "$repository/recipes/ultrafeedback.toml" "seed=$seed" \
        "data.train=$ultrafeedback/train_clean.jsonl.gz" "data.held_out=$ultrafeedback/eval_clean.jsonl.gz"
done
python3 "$repository/experiments/summarise.py" stages "$out"
