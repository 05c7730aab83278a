/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "infile.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outfile.h"
#include "problem.h"

static const char *reads_stdin; /* the option that has read standard input, or NULL */

/* Copies all that `from` gives. Its own copy is the only place where a pipe can be read from again. */
static FILE *keep(const char *role, const char *path, FILE *from) {
  FILE *kept = tmpfile();
  if (!kept) {
    complain("%s %s: cannot make a temporary file for it: %s", role, path, strerror(errno));
    return NULL;
  }
  char bytes[1 << 16];
  size_t length;
  bool written = true;
  while (written && (length = fread(bytes, 1, sizeof bytes, from)) > 0) {
    written = fwrite(bytes, 1, length, kept) == length;
  }
  const char *problem = ferror(from) ? "cannot read" : "cannot keep it in a temporary file";
  if (!ferror(from) && written && fseek(kept, 0, SEEK_SET) == 0) return kept;
  complain("%s %s: %s: %s", role, path, problem, strerror(errno));
  fclose(kept);
  return NULL;
}

static FILE *open_stdin(const char *role, const char *expected) {
  if (reads_stdin) {
    complain("%s -: %s has read standard input; give one of the two as a file", role, reads_stdin);
    return NULL;
  }
  if (isatty(STDIN_FILENO)) {
    complain("%s -: standard input is a terminal; expected %s through a pipe", role, expected);
    return NULL;
  }
  reads_stdin = role;
  return keep(role, "-", stdin);
}

static FILE *open_path(const char *role, const char *path, const char *expected) {
  struct stat about;
  if (stat(path, &about) != 0) {
    complain("%s %s: cannot open: %s", role, path, strerror(errno));
    return NULL;
  }
  if (!S_ISREG(about.st_mode) && !S_ISFIFO(about.st_mode)) {
    complain("%s %s: neither a file nor a pipe; expected %s", role, path, expected);
    return NULL;
  }
  FILE *file = fopen(path, "rbe");
  if (!file) {
    complain("%s %s: cannot open: %s", role, path, strerror(errno));
    return NULL;
  }
  if (S_ISREG(about.st_mode)) {
    outfile_protect(role, &about);
    return file;
  }
  FILE *kept = keep(role, path, file);
  fclose(file);
  return kept;
}

FILE *infile_open(const char *role, const char *path, const char *expected, int64_t *size) {
  FILE *file = strcmp(path, "-") == 0 ? open_stdin(role, expected) : open_path(role, path, expected);
  struct stat about;
  if (!file) return NULL;
  if (fstat(fileno(file), &about) == 0) {
    *size = (int64_t)about.st_size;
    return file;
  }
  complain("%s %s: cannot read: %s", role, path, strerror(errno));
  fclose(file);
  return NULL;
}
