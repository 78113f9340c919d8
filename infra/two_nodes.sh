#!/usr/bin/env bash
# Two Ray nodes on one machine, to try the cluster way of working without a cluster.
#   infra/two_nodes.sh start     then: RAY_ADDRESS=http://127.0.0.1:8265 ray job submit --working-dir . -- python -m jobs doctor
#   infra/two_nodes.sh stop      ends exactly the processes that start made
set -euo pipefail
cd "$(dirname "$0")/.."
state="${TMPDIR:-/tmp}/e4t-two-nodes"
port="${RAY_PORT:-6380}" dashboard="${RAY_DASHBOARD_PORT:-8265}"
# Everything is on loopback; a head would otherwise set up token authentication in the user's home.
export RAY_AUTH_MODE=disabled
# The job's `python` must be the environment's.
export PATH="$PWD/.venv/bin:$PATH"
case "${1:-}" in
  start)
    [ ! -e "$state/pids" ] || { echo "already started (see $state/pids); run '$0 stop' first" >&2; exit 1; }
    mkdir -p "$state"
    ray start --head --port "$port" --dashboard-port "$dashboard" --num-cpus 2 --temp-dir "$state/1" --block \
      >"$state/head.log" 2>&1 & echo $! >"$state/pids"
    until ray health-check --address "127.0.0.1:$port" >/dev/null 2>&1; do
      kill -0 "$(head -1 "$state/pids")" || { tail "$state/head.log" >&2; rm "$state/pids"; exit 1; }
      sleep 1
    done
    ray start --address "127.0.0.1:$port" --num-cpus 2 --temp-dir "$state/2" --resources '{"second": 1}' --block >"$state/worker.log" 2>&1 & echo $! >>"$state/pids"
    echo "head at 127.0.0.1:$port, jobs at http://127.0.0.1:$dashboard"
    ;;
  stop)
    [ -e "$state/pids" ] || { echo "not started" >&2; exit 1; }
    # `ray stop` would end every Ray on the machine.
    tac "$state/pids" | xargs -r kill; rm "$state/pids"
    ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
