#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# total.sh [--brief] FOLDER...: adds up what tests/harness/tally.sh left in these folders. Lists what failed, and what
# was skipped and why (for want of a GPU: one line a test); then a table by device, and one line, "tests: N passed, N
# failed, N skipped". --brief: the table and that line alone. FOLDER/expected names every test with its label; one that
# left nothing behind counts as failed. Exit status 1 if anything failed or nothing passed.
set -u
brief=0
[ "${1:-}" != --brief ] || { brief=1 && shift; }
for folder; do
  while read -r name label; do echo "$folder $name $label"; done <"$folder/expected"
done | LC_ALL=C awk -v brief="$brief" '
  function say(text) { if (!brief) print text }
  BEGIN {
    count = split("cpu,emulated GPU,GPU,Python,other", device, ",")
    row["unit"] = 1; row["emulated"] = 2; row["cuda"] = 3; row["python"] = 4
  }
  {
    base = $1 "/" $2
    at = $3 in row ? row[$3] : count
    if ((getline line <(base ".count")) <= 0) {
      say("did not run: " $2)
      failed[at]++
      next
    }
    split(line, n, " ")
    passed[at] += n[1]; failed[at] += n[2]; skipped[at] += n[3]
    if (n[2] > 0) say("failed: " $2 " (" base ".log)")
    while ((getline line <(base ".skipped")) > 0) {
      split(line, part, "\t")
      if (part[3] !~ /^no GPU/) {
        say("skipped: " $2 ": " part[2] ": " part[3])
        continue
      }
      wanting[at] += part[1]
      sub(/^no GPU[^:]*: /, "", part[3])
      if (!(part[3] in tests)) reason[++reasons] = part[3]
      tests[part[3]] = tests[part[3]] sprintf("%6d  %s\n", part[1], $2)
    }
  }
  END {
    for (i = 1; i <= reasons; i++) {
      say("skipped for want of a GPU, cases and test (" reason[i] "):")
      if (!brief) printf "%s", tests[reason[i]]
    }
    printf "%-14s %8s %8s %8s  %s\n", "device", "passed", "failed", "skipped", "for want of a GPU"
    for (at = 1; at <= count; at++) {
      printf "%-14s %8d %8d %8d  %17d\n", device[at], passed[at], failed[at], skipped[at], wanting[at]
      p += passed[at]; f += failed[at]; s += skipped[at]
    }
    printf "tests: %d passed, %d failed, %d skipped\n", p, f, s
    exit f > 0 || p == 0
  }'
