#!/usr/bin/env bash
# Load on a scalar reward model behind the server, as a table: see run.py.
exec python3 -B "$(dirname "$0")/run.py" "$@"
