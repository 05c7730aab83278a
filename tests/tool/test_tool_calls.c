/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool when the system fails: each call that opens, reads, writes, closes or renames a file, makes a thread or
 * loads a library fails once. If the tool then reports success, its answer is complete. If it refuses, it says so and
 * leaves nothing. A limit of the file size stands for a full disk.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/answer.h"
#include "support/devices.h"
#include "support/tool.h"

enum { PATH_BYTES = 512 };

TestSuite(tool_calls, .init = tool_use_built, .timeout = 300);

/* Bytes of a file in the folder, -1: there is none. */
static int64_t size_of(const tool_folder *folder, const char *name) {
  char path[PATH_BYTES];
  struct stat about;
  tool_file(path, sizeof path, folder, name);
  return stat(path, &about) == 0 ? (int64_t)about.st_size : -1;
}

#ifdef TARE_FAILING_CALLS
/* A command that writes `file`; what it says is JSON where `json` stands. */
typedef struct command {
  const char *words, *file;
  bool json;
} command;

/* After a success the answer and the file are whole; after a refusal nothing but a line is there. */
static void check_all_or_nothing(const tool_folder *folder, const command *c, int status, int64_t whole,
                                 const char *what) {
  char *out = tool_text(folder, "out"), *err = tool_text(folder, "err");
  const int64_t size = size_of(folder, c->file);
  cr_assert(status == 0 || status == 1, "%s, %s: exit %d: %s", c->words, what, status, err);
  if (status == 0) {
    cr_assert_eq(size, whole, "%s, %s: %lld of %lld bytes", c->words, what, (long long)size, (long long)whole);
    if (c->json) answer_free(answer_read(out));
    cr_assert_neq(out[0], '\0', "%s, %s: no answer", c->words, what);
  } else {
    const bool at_the_end = strstr(what, "fclose") != NULL && size == whole; /* closing standard output */
    cr_assert(size == -1 || at_the_end, "%s, %s: refused (%s), but a file of %lld bytes", c->words, what, err,
              (long long)size);
    cr_assert_neq(err[0], '\0', "%s, %s: nothing was said", c->words, what);
  }
  free(out);
  free(err);
  tool_shell(folder, "rm -f %s", c->file);
  tool_expect_nothing_left(folder, what);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

/* The name of the call that failed, or nothing. */
static bool fail_call(const tool_folder *folder, const command *c, int at, int64_t whole, char name[64]) {
  char what[128];
  tool_shell(folder, "rm -f fail");
  const int status = tool_shell(folder, "TARE_FAIL_AT=%d TARE_FAIL_MARK=fail LD_PRELOAD=%s exec \"$TARE\" %s", at,
                                TARE_FAILING_CALLS, c->words);
  const bool came = size_of(folder, "fail") >= 0;
  char *call = came ? tool_text(folder, "fail") : NULL;
  snprintf(name, 64, "%s", came ? call : "none");
  snprintf(what, sizeof what, "call %d (%s)", at, name);
  free(call);
  check_all_or_nothing(folder, c, status, whole, what);
  if (!came) cr_assert_eq(status, 0, "%s: nothing failed, and it refused", c->words);
  return came;
}
#endif

/* Every call, or each `step` calls one. */
static void fail_each_call(const char *words, const char *file, bool json, int step) {
#ifndef TARE_FAILING_CALLS
  (void)words, (void)file, (void)json, (void)step;
  cr_skip_test("no failing calls under the sanitizers");
#else
  const command c = {words, file, json};
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" %s", words), 0);
  const int64_t whole = size_of(&folder, file);
  tool_shell(&folder, "rm -f %s", file);
  char name[64];
  int at = 1;
  while (fail_call(&folder, &c, at, whole, name)) at += step;
  cr_assert_gt(at, 3, "%s: %d calls", words, at - 1);
  tool_folder_remove(&folder);
#endif
}

Test(tool_calls, evaluation) { fail_each_call("$EVAL --json --grad-out a", "a", true, 1); }
Test(tool_calls, weights) { fail_each_call("weights --class-counts c.csv --beta 0.9 --json --out a", "a", true, 1); }
Test(tool_calls, information) { fail_each_call("info --json", "a", true, 1); }

Test(tool_calls, a_picture) {
  const tool_folder folder = tool_folder_with_files();
  const bool draws = tool_shell(&folder, "command -v gnuplot") == 0;
  tool_folder_remove(&folder);
  if (!draws) cr_skip_test("no gnuplot");
  fail_each_call("$EVAL --json --plot a.svg", "a.svg", true, 5); /* gnuplot takes its time */
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

/* Every output ends at every size below its own: SIGXFSZ would come, and is no reason to leave something behind. */
static void limit_file(const char *option, int64_t step) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" $EVAL %s a", option), 0);
  const int64_t whole = size_of(&folder, "a");
  cr_assert_gt(whole, 0);
  for (int64_t limit = 0; limit <= whole + step; limit += step) {
    tool_shell(&folder, "rm -f a");
    tool_answer answer = tool_run(&folder, limit > 0 ? limit : 1,
                                  "eval --loss sigmoid-focal --logits %s/x.npy "
                                  "--labels %s/y.npy %s %s/a",
                                  folder.path, folder.path, option, folder.path);
    const int64_t size = size_of(&folder, "a");
    cr_assert(answer.status == 1 ? size == -1 : answer.status == 0 && size == whole,
              "%s, %lld of %lld bytes: exit %d, %lld", option, (long long)limit, (long long)whole, answer.status,
              (long long)size);
    tool_answer_free(&answer);
    tool_shell(&folder, "rm -f stdout stderr");
    tool_expect_nothing_left(&folder, option);
  }
  tool_folder_remove(&folder);
}

Test(tool_calls, gradients_of_every_size) { limit_file("--grad-out", test_size(120, 400)); }
Test(tool_calls, row_losses_of_every_size) { limit_file("--row-loss-out", test_size(120, 400)); }
