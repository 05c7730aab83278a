#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# total.sh FOLDER...: adds up what tests/tally.sh left in these folders. Lists what was skipped and why, then prints
# one line, "tests: N passed, N failed, N skipped". A test named in FOLDER/expected that left nothing behind counts as
# failed. Exit status 1 if anything failed or nothing passed.
set -u
passed=0 failed=0 skipped=0
for folder; do
  while read -r name; do
    count=$folder/$name.count
    if [ ! -f "$count" ]; then
      echo "did not run: $name"
      failed=$((failed + 1))
      continue
    fi
    read -r p f s <"$count"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || echo "failed: $name ($folder/$name.log)"
    [ ! -s "$folder/$name.skipped" ] || sed "s/^/skipped: $name: /" "$folder/$name.skipped"
  done <"$folder/expected"
done
echo "tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
