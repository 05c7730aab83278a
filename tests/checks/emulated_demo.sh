#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# emulated_demo.sh TOOL IMBALANCE...: the example program writes its batch (examples/imbalance.c, after
# what runs it), and the tool evaluates a loss of each kind on it.
set -eu
tool=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$@" "$scratch"
for loss in sigmoid-focal softmax-ce ghm-c; do
  "$tool" eval --loss $loss --logits "$scratch/logits.npy" --labels "$scratch/labels.npy"
done
