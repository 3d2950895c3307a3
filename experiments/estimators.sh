#!/usr/bin/env bash
# usage: experiments/estimators.sh OUT [SEED]…
#
# Six arms from one cold start a seed: how the score enters the gradient, times whether
# advantages are divided by the group's deviation. Pairs, judgements, learning rate,
# replay and the order of the data are the same in every arm, and so are the tokens, but
# for the few that the readings of the score cost. OUT/cold-sSEED may be a finished run of
# the quickstart with the same seed: it has the same cold start.
source "$(dirname "$0")/common.sh"
out=$(realpath -m "$1")
shift
seeds=("$@")
if [ $# = 0 ]; then seeds=(0 1 2); fi
recipe=$repository/recipes/quickstart.toml
shared=("evaluation.stage_pairs=${PAIRS:-80}" "checkpoint.every=0")

for seed in "${seeds[@]}"; do
    cold=$out/cold-s$seed
    train_once "$cold" "$recipe" "seed=$seed" "${shared[@]}" "grpo.steps=0"
    mapfile -t start < <(from_cold_start "$cold")
    for estimator in marginal sampled sampled_score_only; do
        for normalise in true false; do
            run=$out/$estimator-$([ $normalise = true ] && echo std || echo plain)-s$seed
            train_once "$run" "$recipe" "seed=$seed" "${shared[@]}" "${start[@]}" \
                "grpo.steps=${STEPS:-12}" "grpo.pairs=${BATCH:-4}" "grpo.num_judgements=4" \
                "grpo.estimator=$estimator" "grpo.std_normalise=$normalise"
            drop_weights "$run"
        done
    done
done
python3 "$repository/experiments/summarise.py" estimators "$out"
