#!/usr/bin/env bash
# gridengine-up.sh -- bring up a real Grid Engine on this host for tests: Debian, root, no systemd needed.
# Idempotent: what runs already (by pid file) is left alone. gridengine-down.sh stops it.
#
# Knobs (environment):
#   GRIDENGINE_TEST_BASE   logs, generated files     (${TMPDIR:-/tmp}/jobmon-gridengine)
#   SLOTS                  slots of this host        (16)
#   SHORT_MAX, LONG_MAX    h_rt of the queues, s     (300, 86400)
set -euo pipefail
BASE=${GRIDENGINE_TEST_BASE:-${TMPDIR:-/tmp}/jobmon-gridengine}
SLOTS=${SLOTS:-16}; SHORT_MAX=${SHORT_MAX:-300}; LONG_MAX=${LONG_MAX:-86400}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
COMMON=$SGE_ROOT/$SGE_CELL/common
START=$SECONDS
say() { printf '[gridengine-up %3d s] %s\n' "$((SECONDS - START))" "$*"; }
die() { say "FAILED: $*"; exit 1; }
[ "$(id -u)" = 0 ] || die "must be root"

# wait_for SECONDS WHAT COMMAND... : poll until the command succeeds
wait_for() {
  local what=$2 end=$((SECONDS + $1)); shift 2
  until "$@" >"$BASE/wait.log" 2>&1; do
    [ $SECONDS -lt $end ] || { tail -5 "$BASE/wait.log"; die "$what (logs: $BASE, /var/spool/gridengine)"; }
    sleep 0.1
  done
}
alive() {
  local pid; pid=$(cat "$1" 2>/dev/null) || return 1
  [ -n "$pid" ] && grep -q "$2" "/proc/$pid/comm" 2>/dev/null
}

# ------------------------------------------------------------------ packages
PACKAGES="gridengine-master gridengine-exec gridengine-client"
missing=""
for package in $PACKAGES; do
  [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] || missing+=" $package"
done
if [ -n "$missing" ]; then
  say "apt-get install$missing"
  policy=/usr/sbin/policy-rc.d made=0           # do not let dpkg start daemons
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; }
  log=${TMPDIR:-/tmp}/gridengine-apt.log
  apt-get update -qq -o DPkg::Lock::Timeout=300
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 $missing >"$log" 2>&1 \
    || { tail -30 "$log"; die "apt-get install"; }
  [ $made = 1 ] && rm -f $policy
fi

# ------------------------------------------------------------------ loopback only
# Its daemons bind every address; a preloaded bind() keeps them on 127.0.0.1.
install -d -m 755 "$BASE" /var/run/gridengine
chown sgeadmin:sgeadmin /var/run/gridengine
[ "$BASE/loopback.so" -nt "$HERE/loopback.c" ] || gcc -shared -fPIC -O1 -o "$BASE/loopback.so" "$HERE/loopback.c" -ldl
daemon() { SGE_MASTER_PIDFILE=/var/run/gridengine/qmaster.pid LD_PRELOAD="$BASE/loopback.so" SGE_ND=1 setsid "$@" </dev/null >>"$BASE/daemons.log" 2>&1 & }

# ------------------------------------------------------------------ daemons
HOST=$(hostname)
echo localhost >"$COMMON/act_qmaster"
echo "localhost $HOST" >"$COMMON/host_aliases"
if ! alive "$BASE/qmaster.pid" sge_qmaster; then
  daemon sge_qmaster
  echo $! >"$BASE/qmaster.pid"
fi
file() { cat >"$BASE/$1"; chmod 644 "$BASE/$1"; }
as_manager() { setpriv --reuid=sgeadmin --regid=sgeadmin --clear-groups env HOME=/ "$@"; }
wait_for 30 "the qmaster did not respond" as_manager qconf -sh
if [ ! -e "$BASE/configured" ]; then
  as_manager qconf -am root >/dev/null || true
  qconf -as localhost >/dev/null || true
  qconf -ah localhost >/dev/null 2>&1 || true
  # before the execution daemon starts, which else learns of it only with its next report
  qconf -sconf global | grep -v '^#' | sed -e ':a;/\\$/N;s/\\\n *//;ta' | sed \
    -e 's/^reporting_params .*/reporting_params accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 joblog=false sharelog=00:00:00/' \
    -e 's/^mailer .*/mailer \/bin\/true/' -e 's/^min_uid .*/min_uid 0/' -e 's/^min_gid .*/min_gid 0/' -e 's/^load_report_time .*/load_report_time 00:00:05/' \
    -e 's/^max_unheard .*/max_unheard 00:00:20/' | file global
  qconf -Mconf "$BASE/global" >/dev/null
fi
if ! alive "$BASE/execd.pid" sge_execd; then
  daemon sge_execd
  echo $! >"$BASE/execd.pid"
fi
wait_for 30 "the execution daemon did not register" sh -c "qconf -sel | grep -q '^localhost'"

# ------------------------------------------------------------------ queues, scheduler
if [ ! -e "$BASE/configured" ]; then
  qconf -ssconf | sed -e 's/^schedule_interval .*/schedule_interval 0:0:1/' -e 's/^flush_submit_sec .*/flush_submit_sec 1/' \
    -e 's/^flush_finish_sec .*/flush_finish_sec 1/' -e 's/^schedd_job_info .*/schedd_job_info true/' \
    -e 's/^job_load_adjustments .*/job_load_adjustments NONE/' -e 's/^load_formula .*/load_formula slots/' | file scheduler
  qconf -Msconf "$BASE/scheduler" >/dev/null
  printf 'group_name @allhosts\nhostlist localhost\n' | file hosts
  qconf -shgrp @allhosts >/dev/null 2>&1 || qconf -Ahgrp "$BASE/hosts" >/dev/null
  file smp <<PE
pe_name            smp
slots              999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    \$pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
PE
  qconf -sp smp >/dev/null 2>&1 || qconf -Ap "$BASE/smp" >/dev/null
  for queue in short.q:$SHORT_MAX:0 long.q:$LONG_MAX:1; do
    IFS=: read -r name seconds number <<<"$queue"
    file "$name" <<QUEUE
qname                 $name
hostlist              @allhosts
seq_no                $number
load_thresholds       NONE
suspend_thresholds    NONE
nsuspend              1
suspend_interval      00:05:00
priority              0
min_cpu_interval      00:05:00
processors            UNDEFINED
qtype                 BATCH INTERACTIVE
ckpt_list             NONE
pe_list               smp
rerun                 FALSE
slots                 $SLOTS
tmpdir                /tmp
shell                 /bin/sh
prolog                NONE
epilog                NONE
shell_start_mode      unix_behavior
starter_method        NONE
suspend_method        NONE
resume_method         NONE
terminate_method      NONE
notify                00:00:60
owner_list            NONE
user_lists            NONE
xuser_lists           NONE
subordinate_list      NONE
complex_values        NONE
projects              NONE
xprojects             NONE
calendar              NONE
initial_state         default
s_rt                  INFINITY
h_rt                  $seconds
s_cpu                 INFINITY
h_cpu                 INFINITY
s_fsize               INFINITY
h_fsize               INFINITY
s_data                INFINITY
h_data                INFINITY
s_stack               INFINITY
h_stack               INFINITY
s_core                INFINITY
h_core                INFINITY
s_rss                 INFINITY
h_rss                 INFINITY
s_vmem                INFINITY
h_vmem                8G
QUEUE
    qconf -sq "$name" >/dev/null 2>&1 || qconf -Aq "$BASE/$name" >/dev/null
  done
  touch "$BASE/configured"
fi
# After a restart of the master the execution daemon may take more than a minute to connect again.
wait_for 150 "the queues did not open" sh -c "! qselect -qs uE | grep -q . && [ \$(qselect | wc -l) = 2 ]"
say "READY: $(qselect | tr '\n' ' ')"
