# Shared by the experiment scripts: where the program is, and runs that are done once.

set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
patarm=${PATARM:-$repository/target/release/patarm}
read -r -a flags <<<"${PATARM_FLAGS:-}"

# train_once RUN RECIPE [KEY=VALUE]…: trains unless RUN is finished; goes on with one that
# was interrupted.
train_once() {
    local run=$1 recipe=$2
    shift 2
    if grep -qs '"finished"' "$run/run.json"; then
        return
    fi
    local changes=()
    if [ -n "${MODEL:-}" ]; then
        changes+=(--set "model=$MODEL")
    fi
    for change in "$@"; do
        changes+=(--set "$change")
    done
    local place=(--out "$run")
    if [ -e "$run/recipe.toml" ]; then
        place=(--resume "$run")
    fi
    mkdir -p "$(dirname "$run")"
    echo "$(date +%T) $run" >&2
    "$patarm" "${flags[@]}" train "$recipe" "${place[@]}" "${changes[@]}" --json >"$run.json" 2>"$run.log"
}

# from_cold_start RUN: the changes that start an arm from the cold start of RUN.
from_cold_start() {
    printf '%s\n' "model=$1/checkpoints/cold_start" "cold_start.steps=0" \
        "cold_start.source={ kind = \"file\", path = \"$1/cold_start.jsonl\" }"
}

# drop_weights RUN: keeps what a table needs, not the weights.
drop_weights() {
    if [ "${KEEP_WEIGHTS:-0}" = 0 ]; then
        rm -rf "$1/checkpoints"
    fi
}
