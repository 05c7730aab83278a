#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# loaded.sh SOURCE: a context loads the kernels of every file. One that it forgets would be loaded by its first call,
# which a capture does not allow.
set -eu
cd "$1/cuda"
declared=$(sed -n 's/^cudaError_t \(load_[a-z0-9_]*\)();$/\1/p' ./*.cuh)
[ -n "$declared" ] || { echo "no file declares what loads its kernels"; exit 1; }
for name in $declared; do
  grep -q "\b$name\b" context.cu || { echo "context.cu does not call $name"; exit 1; }
done
echo "$declared" | wc -l
