#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks the first line of a commit message: present, 72 columns at most, an empty line after it.
#   scripts/check_subject.sh FILE   (git calls it so, as a commit-msg hook)
set -eu
file=${1:?usage: check_subject.sh FILE}
message=$(grep -v '^#' "$file" || true)
subject=$(printf '%s\n' "$message" | sed -n 1p)
second=$(printf '%s\n' "$message" | sed -n 2p)
if [ -z "$subject" ]; then
  echo "commit message: the first line is empty; it must say what the commit does" >&2
  exit 1
fi
columns=$(printf %s "$subject" | wc -m)
if [ "$columns" -gt 72 ]; then
  echo "commit message: the subject has $columns columns; 72 are allowed: $subject" >&2
  exit 1
fi
if [ -n "$second" ]; then
  echo "commit message: line 2 must be empty; the body starts on line 3" >&2
  exit 1
fi
