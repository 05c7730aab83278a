/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command-line tool as a child process: its arguments in, its exit status and what it wrote out.
 */
#ifndef TARE_TESTS_TOOL_H
#define TARE_TESTS_TOOL_H

#include <stddef.h>
#include <stdint.h>

/* Where a test's files are: a fresh folder, removed at the end. */
typedef struct tool_folder {
  char path[256];
} tool_folder;

tool_folder tool_folder_make(void);
void tool_folder_remove(const tool_folder *folder);

/** Fails the test where the folder holds a file that is not one of `names` (ended by NULL). */
void tool_folder_expect_only(const tool_folder *folder, const char *const *names, const char *what);

/** "<folder>/<name>", in a buffer of the caller. */
void tool_file(char *path, size_t size, const tool_folder *folder, const char *name);

/** The whole of a file, ended by a zero byte; free() it. */
char *tool_file_text(const char *path);

typedef struct tool_answer {
  int status; /* exit status; -1: killed by a signal */
  char *out, *err;
} tool_answer;

/** The tool to run where the environment variable TARE_TOOL names none; NULL: there is none. Set before the first
 *  run. */
extern const char *tool_built;

/** The .init of a suite whose tests run this build's tool. CMake gives its path to a test's own files. */
static inline void tool_use_built(void) {
#ifdef TARE_TOOL_PATH
  tool_built = TARE_TOOL_PATH;
#endif
}

/** Runs the tool (TARE_TOOL, else tool_built) with arguments separated by blanks; skips the test where
 *  there is no tool. A file it writes may have `file_limit` bytes; 0: no limit. */
tool_answer tool_run(const tool_folder *folder, int64_t file_limit, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void tool_answer_free(tool_answer *answer);

/** A folder with x.npy (logits), y.npy (labels) and c.csv (counts). */
tool_folder tool_folder_with_files(void);

/** Runs a shell command in the folder: $TARE is the tool, $EVAL an evaluation of the files without outputs. What it
 *  says goes to "out" and "err" there. Returns the exit status; a signal is 128 and its number, as in any shell. */
int tool_shell(const tool_folder *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Runs a shell command as above. It must end with `status` and say `word` among its errors. */
void tool_expect_refused(const tool_folder *folder, const char *command, int status, const char *word);

/** The whole of a file in the folder; free() it. */
char *tool_text(const tool_folder *folder, const char *name);

/** No file but the inputs, "out" and "err", and what a test puts there itself: gnuplot, pids, a, link, hard, fail. */
void tool_expect_nothing_left(const tool_folder *folder, const char *what);

#endif
