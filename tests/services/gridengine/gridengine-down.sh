#!/usr/bin/env bash
# gridengine-down.sh -- delete all jobs and stop what gridengine-up.sh started, by its pid files.
set -u
BASE=${GRIDENGINE_TEST_BASE:-${TMPDIR:-/tmp}/jobmon-gridengine}
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
# stop PIDFILE NAME SECONDS : end this process, by its pid, if it still is the one
stop() {
  local pid; pid=$(cat "$1" 2>/dev/null) || return 0
  grep -q "$2" "/proc/$pid/comm" 2>/dev/null || { rm -f "$1"; return 0; }
  kill "$pid"
  for ((i = 0; i < $3 * 10; i++)); do [ -d "/proc/$pid" ] || { rm -f "$1"; return 0; }; sleep 0.1; done
  kill -9 "$pid"; rm -f "$1"
}
timeout 20 qdel -f -u '*' >/dev/null 2>&1
stop "$BASE/execd.pid" sge_execd 10
stop "$BASE/qmaster.pid" sge_qmaster 15
