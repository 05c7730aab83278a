/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running the command-line tool and collecting what it says.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "npy.h"

enum { MOST_ARGUMENTS = 64, LONGEST_LINE = 8192 };

tool_folder tool_folder_make(void) {
  tool_folder folder;
  const char *parent = getenv("TMPDIR"); /* tally.sh removes its own, whatever happens to the test */
  snprintf(folder.path, sizeof folder.path, "%s/tare-test-XXXXXX", parent == NULL || *parent == '\0' ? "/tmp" : parent);
  cr_assert_not_null(mkdtemp(folder.path), "no folder for the tool's files");
  return folder;
}

void tool_file(char *path, size_t size, const tool_folder *folder, const char *name) {
  snprintf(path, size, "%s/%s", folder->path, name);
}

void tool_folder_remove(const tool_folder *folder) {
  char path[512];
  DIR *entries = opendir(folder->path);
  if (entries == NULL) return;
  for (const struct dirent *e = readdir(entries); e != NULL; e = readdir(entries)) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    tool_file(path, sizeof path, folder, e->d_name);
    remove(path);
  }
  closedir(entries);
  rmdir(folder->path);
}

void tool_folder_expect_only(const tool_folder *folder, const char *const *names, const char *what) {
  DIR *entries = opendir(folder->path);
  cr_assert_not_null(entries);
  for (const struct dirent *e = readdir(entries); e != NULL; e = readdir(entries)) {
    bool expected = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    for (size_t i = 0; names[i] != NULL; i++) expected = expected || strcmp(e->d_name, names[i]) == 0;
    cr_assert(expected, "%s: %s was left behind", what, e->d_name);
  }
  closedir(entries);
}

const char *tool_built = NULL;

static const char *tool_path(void) {
  const char *path = getenv("TARE_TOOL");
  if (path == NULL || *path == '\0') path = tool_built;
  if (path == NULL || access(path, X_OK) != 0) cr_skip_test("no command-line tool (TARE_TOOL)");
  return path;
}

static int open_output(const char *path) { return open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600); }

static char *read_all(int file) {
  const off_t size = lseek(file, 0, SEEK_END);
  char *text = calloc(1, (size_t)size + 1);
  cr_assert_eq(pread(file, text, (size_t)size, 0), size);
  close(file);
  return text;
}

char *tool_file_text(const char *path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  cr_assert_geq(file, 0, "no file %s", path);
  return read_all(file);
}

static void become_tool(const char *path, char **arguments, int out, int err, int64_t file_limit) {
  if (file_limit > 0) {
    const struct rlimit limit = {.rlim_cur = (rlim_t)file_limit, .rlim_max = (rlim_t)file_limit};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  execv(path, arguments);
  _exit(127);
}

tool_answer tool_run(const tool_folder *folder, int64_t file_limit, const char *format, ...) {
  char line[LONGEST_LINE], out_path[512], err_path[512];
  char *arguments[MOST_ARGUMENTS + 1] = {NULL};
  const char *path = tool_path();
  va_list list;
  va_start(list, format);
  const int length = vsnprintf(line, sizeof line, format, list);
  va_end(list);
  cr_assert(length < LONGEST_LINE, "a command line of %d characters", length);
  int count = 0;
  arguments[count++] = (char *)path;
  for (char *word = strtok(line, " "); word != NULL && count < MOST_ARGUMENTS; word = strtok(NULL, " ")) {
    arguments[count++] = word;
  }
  tool_file(out_path, sizeof out_path, folder, "stdout");
  tool_file(err_path, sizeof err_path, folder, "stderr");
  const int out = open_output(out_path), err = open_output(err_path);
  cr_assert(out >= 0 && err >= 0);
  const pid_t child = fork();
  cr_assert_neq(child, -1);
  if (child == 0) become_tool(path, arguments, out, err, file_limit);
  int status = 0;
  cr_assert_eq(waitpid(child, &status, 0), child);
  return (tool_answer){
      .status = WIFEXITED(status) ? WEXITSTATUS(status) : -1, .out = read_all(out), .err = read_all(err)};
}

void tool_answer_free(tool_answer *answer) {
  free(answer->out);
  free(answer->err);
}

/* ---- A folder with inputs, and commands in it ------------------------------------------------------------------ */

tool_folder tool_folder_with_files(void) {
  enum { ROWS = 400, CLASSES = 3 };
  const tool_folder folder = tool_folder_make();
  char path[512];
  static float logits[ROWS * CLASSES];
  static int32_t labels[ROWS];
  for (int i = 0; i < ROWS * CLASSES; i++) logits[i] = (float)(i % 13 - 6) / 2;
  for (int i = 0; i < ROWS; i++) labels[i] = i % 5 - 2;
  tool_file(path, sizeof path, &folder, "x.npy");
  npy_write(path, "<f4", false, ROWS, CLASSES, logits, sizeof logits);
  tool_file(path, sizeof path, &folder, "y.npy");
  npy_write(path, "<i4", false, ROWS, 0, labels, sizeof labels);
  tool_file(path, sizeof path, &folder, "c.csv");
  FILE *counts = fopen(path, "w");
  cr_assert_not_null(counts);
  fputs("5\n60\n7.5\n", counts);
  cr_assert_eq(fclose(counts), 0);
  return folder;
}

static void become_shell(const tool_folder *folder, const char *path, const char *command) {
  static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGXFSZ, SIGPIPE};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
  setenv("TARE", path, 1);
  setenv("EVAL", "eval --loss ghm-c --device cpu --threads 1 --logits x.npy --labels y.npy", 1);
  if (chdir(folder->path) != 0 || !freopen("out", "w", stdout) || !freopen("err", "w", stderr)) _exit(99);
  execl("/bin/sh", "sh", "-c", command, (char *)NULL);
  _exit(99);
}

int tool_shell(const tool_folder *folder, const char *format, ...) {
  char command[4096], path[PATH_MAX];
  cr_assert_not_null(realpath(tool_path(), path)); /* the shell runs in another folder */
  va_list list;
  va_start(list, format);
  const int length = vsnprintf(command, sizeof command, format, list);
  va_end(list);
  cr_assert(length < (int)sizeof command, "a command of %d characters", length);
  const pid_t child = fork();
  cr_assert_neq(child, -1);
  if (child == 0) become_shell(folder, path, command);
  int status = 0;
  cr_assert_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

char *tool_text(const tool_folder *folder, const char *name) {
  char path[512];
  tool_file(path, sizeof path, folder, name);
  return tool_file_text(path);
}

void tool_expect_nothing_left(const tool_folder *folder, const char *what) {
  static const char *const own[] = {"x.npy", "y.npy", "c.csv", "out",    "err",    "gnuplot", "pids",
                                    "a",     "link",  "hard",  "x.kept", "y.kept", "fail",    NULL};
  tool_folder_expect_only(folder, own, what);
}

void tool_expect_refused(const tool_folder *folder, const char *command, int status, const char *word) {
  cr_assert_eq(tool_shell(folder, "%s", command), status, "%s", command);
  char *text = tool_text(folder, "err");
  cr_assert_not_null(strstr(text, word), "no '%s' for %s in: %s", word, command, text);
  free(text);
}
