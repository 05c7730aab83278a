/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool without memory: each of its allocations fails once, alone or with all that follow. If the tool then reports
 * success, its answer is complete. If it refuses, it leaves nothing.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/answer.h"
#include "support/tool.h"

enum { PATH_BYTES = 512 };

TestSuite(tool_memory, .init = tool_use_built, .timeout = 300);

#ifdef TARE_FAILING_MALLOC
static bool is_there(const tool_folder *folder, const char *name) {
  char path[PATH_BYTES];
  tool_file(path, sizeof path, folder, name);
  return access(path, F_OK) == 0;
}

static void take_away(const tool_folder *folder, const char *name) {
  char path[PATH_BYTES];
  tool_file(path, sizeof path, folder, name);
  remove(path);
}

/* The same text; or, of JSON that tells the time, the same arrays. */
static void check_whole(const char *out, const char *reference, const char *const *arrays, const char *what, int at) {
  if (*arrays == NULL) {
    cr_assert_str_eq(out, reference, "%s, allocation %d: not the whole answer", what, at);
    return;
  }
  answer_json *json = answer_read(out), *whole = answer_read(reference);
  for (; *arrays != NULL; arrays++) {
    cr_assert_eq(answer_count(json, *arrays), answer_count(whole, *arrays), "%s, allocation %d: %s", what, at, out);
  }
  answer_free(json);
  answer_free(whole);
}

/* A success leaves whole files; a failure leaves no file and no part of the JSON. Returns whether it failed. */
static bool fail_allocation(const tool_folder *folder, int at, int on, const char *command, const char *reference,
                            const char *const *arrays) {
  take_away(folder, "fail");
  const int status =
      tool_shell(folder, "TARE_FAIL_AT=%d TARE_FAIL_ON=%d TARE_FAIL_MARK=fail LD_PRELOAD=%s exec \"$TARE\" %s", at, on,
                 TARE_FAILING_MALLOC, command);
  char *out = tool_text(folder, "out"), *err = tool_text(folder, "err");
  cr_assert(status <= 1 || status == 127, "%s, allocation %d: exit %d: %s", command, at, status, err);
  if (status == 0) {
    check_whole(out, reference, arrays, command, at);
  } else {
    cr_assert_neq(err[0], '\0', "%s, allocation %d: nothing was said", command, at);
    cr_assert(!is_there(folder, "a"), "%s, allocation %d: a file", command, at);
    cr_assert(strchr(out, '{') == NULL, "%s, allocation %d: half an answer: %s", command, at, out);
  }
  free(out);
  free(err);
  take_away(folder, "a");
  tool_expect_nothing_left(folder, command);
  return status != 0;
}
#endif

/* Each allocation fails in turn, alone or with all after it. `before` runs once, before all. */
static void fail_each_allocation(const char *before, const char *command, const char *const *arrays) {
#ifndef TARE_FAILING_MALLOC
  (void)before, (void)command, (void)arrays;
  cr_skip_test("no failing allocator under the sanitizers");
#else
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "%s; \"$TARE\" %s; rm -f a", before, command), 0);
  char *reference = tool_text(&folder, "out");
  int refused = 0;
  for (int on = 0; on < 2; on++) {
    int at = 0;
    do {
      refused += fail_allocation(&folder, ++at, on, command, reference, arrays);
    } while (is_there(&folder, "fail"));
  }
  cr_assert_gt(refused, 20, "%s", command);
  free(reference);
  tool_folder_remove(&folder);
#endif
}

static const char *const none[] = {NULL};

Test(tool_memory, evaluation) {
  static const char *const arrays[] = {"histogram.edges", "histogram.counts", "histogram.weights", "command", NULL};
  fail_each_allocation(":", "$EVAL --bins 4 --json --grad-out a", arrays);
}

Test(tool_memory, weights) {
  static const char *const arrays[] = {"counts", "effective_numbers", "weights", "command", NULL};
  fail_each_allocation(":", "weights --class-counts c.csv --beta 0.9 --json --out a", arrays);
}

Test(tool_memory, a_table) { fail_each_allocation(":", "weights --class-counts c.csv --beta 0.9 --out a", none); }

Test(tool_memory, information) {
  static const char *const arrays[] = {"losses", "cpu.instruction_sets", "cuda.devices", NULL};
  fail_each_allocation(":", "info --json", arrays);
}

#define BENCH "bench --rows 10 --classes 2 --repeat 6 --loss sigmoid-ce --threads 1 --device cpu --json"

Test(tool_memory, benchmark) {
  static const char *const arrays[] = {"command", "losses", NULL};
  fail_each_allocation(":", BENCH, arrays);
}

Test(tool_memory, comparison) {
  static const char *const arrays[] = {"losses", "comparison.losses", "comparison.only_new", NULL};
  fail_each_allocation("\"$TARE\" " BENCH " >x.kept", BENCH " --compare x.kept", arrays);
}
