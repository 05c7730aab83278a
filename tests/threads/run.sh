#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh DRIVER: the driver under ThreadSanitizer, once as a beginning of everything in several threads, once as many
# rounds. The sanitizer wants its addresses where they usually are, so they are not made random. OpenBLAS is no business
# of ours.
set -eu
fixed=
if command -v setarch >/dev/null && setarch "$(uname -m)" -R true 2>/dev/null; then fixed="setarch $(uname -m) -R"; fi
export TSAN_OPTIONS="halt_on_error=1:die_after_fork=0:second_deadlock_stack=1" OPENBLAS_NUM_THREADS=1
log=${TMPDIR:-/tmp}/threads.log
for what in begin rounds; do
  # shellcheck disable=SC2086
  $fixed "$1" $what >"$log" 2>&1 && status=0 || status=$?
  cat "$log"
  if grep -q 'unexpected memory mapping' "$log"; then
    echo "ThreadSanitizer does not start here: unexpected memory mapping"
    exit 77
  fi
  [ "$status" -eq 0 ] || exit 1
done
