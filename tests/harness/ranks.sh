#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ranks.sh PROGRAM MPIRUN LINES DIFFER2 DIFFER3: an example with MPI finds on two and three ranks what it finds on one, in
# so many lines. Without the reduction over ranks it finds that it does not, in so many lines on two and on three ranks.
# Works as root, in a container, with no network and on one core.
set -eu
program=$1 mpirun=${2:-mpirun} lines=$3 differ2=$4 differ3=$5
if ! command -v "$mpirun" >/dev/null; then
  echo "no mpirun (apt-get install openmpi-bin)"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Open MPI 4 reads OMPI_ names, Open MPI 5 PRTE_ names too; another MPI ignores both.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_plm=isolated                    # no ssh: everything runs here
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader # shared memory only,
export OMPI_MCA_btl_vader_single_copy_mechanism=none # without reading the memory of another process
export OMPI_MCA_oob_tcp_if_include=lo
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" # MPI keeps what it allocates

fail() {
  cat "$scratch/out"
  echo "$1"
  exit 1
}
run() { # run RANKS OPTION...: status in $status, output in $scratch/out
  ranks=$1
  shift
  status=0
  "$mpirun" -np "$ranks" "$program" "$@" >"$scratch/out" 2>&1 </dev/null || status=$?
}

run 1
if [ "$status" -ne 0 ] && grep -q 'unable to find network interfaces' "$scratch/out"; then
  echo "not even a loopback interface is up, and Open MPI needs one"
  exit 77
fi
for count in 1 2 3; do
  run $count
  [ "$status" -eq 0 ] || fail "$count ranks: exit status $status, expected 0"
  [ "$(grep -c ' equal ' "$scratch/out")" -eq "$lines" ] || fail "$count ranks: expected $lines comparisons"
  grep -q "^$count rank" "$scratch/out" || fail "$count ranks were asked for, others ran"
done
cat "$scratch/out"

# A test that cannot fail proves nothing: each comparison must notice that nothing was added up. Some are right not to: if
# one of two ranks has no rows, the other has the whole batch; and no objects are counted alike everywhere.
for count in 2 3; do
  run $count --without-reduction
  [ "$status" -eq 1 ] || fail "$count ranks without the reduction: exit status $status, expected 1"
  differ=$(grep -c ' DIFFERS$' "$scratch/out")
  [ "$differ" -eq $((count == 2 ? differ2 : differ3)) ] || fail "$count ranks without the reduction: only $differ lines differ"
done
echo "Without the reduction, 2 and 3 ranks differ from the whole batch, as they must."
