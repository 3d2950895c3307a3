#!/usr/bin/env bash
# CPU = CUDA on a machine with a GPU: gpu_checks.sh TEST_BINARY [LIBRARY_FOLDERS]
# TEST_BINARY is the test `cuda` of patarm-models, built anywhere with
# `cargo test -p patarm-models -p patarm --test cuda --no-run`; LIBRARY_FOLDERS, joined
# by colons, hold NVRTC and cuBLASLt where the system does not.
set -euo pipefail
binary=${1:?the test binary}
export PATARM_TEST_CUDA=1 PATARM_TEST_CUDA_LIBRARIES=${2:-}
export PATARM_TEST_SEED=${PATARM_TEST_SEED:-$RANDOM}
echo "seed $PATARM_TEST_SEED"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
"$binary" --test-threads 1 --nocapture
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        echo "== $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$binary" --test-threads 1
    done
else
    echo 'compute-sanitizer is not installed: not run'
fi
