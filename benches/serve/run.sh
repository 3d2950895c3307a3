#!/usr/bin/env bash
# run.sh MODEL [OUT]: the load table of docs/performance.md for a scalar reward model.
# Needs the release build. Writes one JSON object a run to OUT (default: serve-bench).
# Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=$1 out=${2:-serve-bench} patarm=target/release/patarm
mkdir -p "$out"

# with_server NAME SERVE_OPTIONS -- BENCH_OPTIONS: one server, one load, one clean stop.
with_server() {
    local name=$1; shift
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    "$patarm" serve --model "$model" --port 0 --log-level warn "${options[@]}" >"$out/$name.address" &
    local pid=$! url=''
    for _ in $(seq 600); do
        url=$(sed -n 's/^listening on //p' "$out/$name.address")
        [ -n "$url" ] && break
        sleep 0.1
    done
    "$patarm" bench serve --url "$url" --server-pid "$pid" --json "$@" >"$out/$name.json"
    kill -TERM "$pid"
    wait "$pid" || { echo "$name: the server did not stop cleanly" >&2; exit 1; }
    echo "== $name"; cat "$out/$name.json"
}

with_server load -- --workload short --requests 10000 --connections 64 --damaged 0.05 --cancelled 0.05
with_server mixed -- --workload mixed --requests 1000 --pool 1000 --connections 64 --damaged 0 --cancelled 0
with_server shared -- --workload shared --requests 100 --pool 100 --connections 64 --damaged 0 --cancelled 0
"$patarm" bench score --model "$model" --rows 256 --length 1000 --json >"$out/offline.json"
echo '== offline'; cat "$out/offline.json"
