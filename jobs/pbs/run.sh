#!/bin/bash
# One slidebatch run on one node under PBS (OpenPBS, PBS Pro).
#
#   qsub -v CONFIG=conf/plate.yaml jobs/pbs/run.sh
#
# CONFIG        the run's config (a file, or the name of a shipped one)
# SLIDEBATCH    the program, if it is not on PATH (/path/to/.venv/bin/slidebatch)
#
# Submit it again to resume: the engine keeps whatever is done. Edit the lines below to suit your cluster.
#PBS -N slidebatch
#PBS -l select=1:ncpus=8:mem=32gb
#PBS -l walltime=08:00:00
#PBS -j oe

set -euo pipefail

: "${CONFIG:?set CONFIG to the config of the run, such as conf/plate.yaml}"
cd "${PBS_O_WORKDIR:-$PWD}"

# The engine runs in the background, because the shell's trap acts only while the shell waits: PBS sends
# SIGTERM at the time limit and SIGKILL about ten seconds later, and in between the engine must be told.
# The trap stands first: a signal that comes while the engine starts is handed on as soon as there is one.
engine=
stopped=0
trap 'stopped=1; [ -z "$engine" ] || kill -TERM "$engine" 2>/dev/null || true' TERM INT
"${SLIDEBATCH:-slidebatch}" run "$CONFIG" &
engine=$!
[ "$stopped" = 0 ] || kill -TERM "$engine" 2>/dev/null || true

# A trap ends `wait` early, with the signal's status: wait again for the engine's own.
status=0
wait "$engine" || status=$?
while [ "$stopped" = 1 ]; do
    stopped=0
    again=0
    wait "$engine" || again=$?
    # 127: the engine had ended, and its status was told, before the signal came.
    [ "$again" = 127 ] || status=$again
done
exit "$status"
