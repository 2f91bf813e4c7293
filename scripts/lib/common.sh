# Shared by the scripts of this checkout; sourced by bash, never run.
# Places and tools only: what to install is in scripts/setup.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
EMULATOR=$VENV/bin/fake-gcs-server
NGINX_RTMP=$VENV/nginx-rtmp
# GStreamer's Python bindings belong to the system's interpreter; another python3 may come first on PATH.
PYTHON=/usr/bin/python3
[ -x "$PYTHON" ] || PYTHON=python3

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Where cargo puts its results: CARGO_TARGET_DIR and cargo's own configuration can move it.
target_dir() {
  (cd "$ROOT" && cargo metadata --format-version 1 --no-deps --offline) |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}
