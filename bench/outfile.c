/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files. The list of unfinished files is static so that a signal handler can remove them.
 */
#define _GNU_SOURCE
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "problem.h"

enum { MAX_FILES = 8 };

static struct outfile {
  FILE *file;
  const char *option;
  char *path, *temporary;
} files[MAX_FILES];
static volatile sig_atomic_t count;

static void remove_and_die(int signal_number) {
  for (int index = 0; index < count; index++) unlink(files[index].temporary);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

static void watch_signals(void) {
  static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
  for (size_t index = 0; index < sizeof deadly / sizeof deadly[0]; index++) {
    struct sigaction now, action = {.sa_handler = remove_and_die};
    sigemptyset(&action.sa_mask);
    sigaction(deadly[index], NULL, &now);
    if (now.sa_handler != SIG_IGN) sigaction(deadly[index], &action, NULL); /* nohup stays nohup */
  }
}

int outfile_failed(const char *option, const char *path) {
  return complain("%s %s: cannot write: %s", option, path, strerror(errno));
}

/* Where a link points, so that the link stays one; the path itself where nothing is yet. */
static char *resolve(const char *option, const char *path) {
  struct stat about;
  if (stat(path, &about) != 0) return strdup(path);
  if (!S_ISREG(about.st_mode)) {
    complain("%s %s: exists and is not a regular file; name a new file", option, path);
    return NULL;
  }
  return realpath(path, NULL);
}

static bool open_beside(struct outfile *out) {
  const char *slash = strrchr(out->path, '/');
  int folder = slash ? (int)(slash - out->path) + 1 : 0;
  if (asprintf(&out->temporary, "%.*s.%s.XXXXXX", folder, out->path, out->path + folder) < 0) {
    out->temporary = NULL;
    return false;
  }
  int descriptor = mkostemp(out->temporary, O_CLOEXEC);
  if (descriptor < 0) return false;
  count++;
  mode_t mask = umask(0);
  umask(mask);
  fchmod(descriptor, 0666 & ~mask); /* as any other new file */
  out->file = fdopen(descriptor, "wb");
  return out->file != NULL;
}

FILE *outfile_open(const char *option, const char *path) {
  if (count == 0) watch_signals();
  if (count == MAX_FILES) {
    complain("%s %s: too many output files", option, path);
    return NULL;
  }
  struct outfile *out = &files[count];
  *out = (struct outfile){.option = option};
  out->path = resolve(option, path);
  if (!out->path) return NULL;
  for (int index = 0; index < count; index++) {
    if (strcmp(files[index].path, out->path) != 0) continue;
    complain("%s %s: %s writes there too; name two files", option, path, files[index].option);
    free(out->path);
    return NULL;
  }
  int before = count;
  if (open_beside(out)) return out->file;
  outfile_failed(option, path);
  if (count == before) { /* not registered: nothing will clean it up */
    free(out->temporary);
    free(out->path);
  }
  return NULL;
}

static void forget(struct outfile *out) {
  if (out->file) fclose(out->file);
  free(out->temporary);
  free(out->path);
  *out = (struct outfile){0};
}

void outfile_discard(void) {
  while (count > 0) {
    struct outfile *out = &files[count - 1];
    unlink(out->temporary);
    count--;
    forget(out);
  }
}

int outfile_commit(void) {
  int status = TOOL_OK;
  for (int index = 0; index < count && status == TOOL_OK; index++) { /* all complete before the first gets its name */
    int failed = fclose(files[index].file);
    files[index].file = NULL;
    if (failed) status = outfile_failed(files[index].option, files[index].path);
  }
  while (count > 0 && status == TOOL_OK) {
    struct outfile *out = &files[count - 1];
    if (rename(out->temporary, out->path) != 0) {
      status = outfile_failed(out->option, out->path);
    } else {
      count--;
      forget(out);
    }
  }
  outfile_discard();
  return status;
}
