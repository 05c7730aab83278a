#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# demo.sh BIN: what ./dev demo shows once everything is built: the example programs, and the tool on the batch that one
# of them writes.
set -eu
bin=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

show() {
  printf '\n%s\n' "$1"
  shift
  "$@"
}

show "Focal loss and gradient of two NCHW levels of a detector's head, in one call (examples/two_levels.c):" "$bin/two_levels"
show "Who gets the gradient among 100,000 anchors, 300 of them on objects? (examples/imbalance.c)" \
  "$bin/imbalance" "$scratch"
show "The same batch from its NumPy files (tare eval --loss sigmoid-focal --normalizer positives):" \
  "$bin/tare" eval --loss sigmoid-focal --normalizer positives --logits "$scratch/logits.npy" --labels "$scratch/labels.npy"
show "A larger one, every loss (tare demo):" "$bin/tare" demo
