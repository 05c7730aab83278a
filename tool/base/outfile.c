/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files. The list of unfinished files is static, so that a signal handler can remove them. It changes only while
 * signals are held.
 */
#define _GNU_SOURCE
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "problem.h"
#include "signals.h"

enum { MAX_FILES = 8, MAX_INPUTS = 16 };

struct place {
  char *path;          /* without links */
  const char *name;    /* its last part */
  struct stat folder;  /* where it lies */
  bool exists;         /* then the next is set */
  struct stat already; /* what is there already */
};

static struct outfile {
  FILE *file;
  const char *option, *given; /* the path as it was given */
  struct place place;
  char *temporary;
} files[MAX_FILES];
static volatile int count;

static struct input {
  const char *role;
  dev_t device;
  ino_t number;
} inputs[MAX_INPUTS];
static int input_count;

void outfile_protect(const char *role, const struct stat *input) {
  if (input_count == MAX_INPUTS) return;
  inputs[input_count++] = (struct input){role, input->st_dev, input->st_ino};
}

int outfile_failed(const char *option, const char *path) {
  return complain("%s %s: cannot write: %s", option, path, strerror(errno));
}

/* -- where it will be --------------------------------------------------------------------------------------------- */

static bool is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int find_existing(const char *option, const char *path, struct place *place) {
  place->exists = true;
  if (!S_ISREG(place->already.st_mode)) {
    return complain("%s %s: exists and is not a regular file; name a new file", option, path);
  }
  if (access(path, W_OK) != 0) return outfile_failed(option, path);
  place->path = realpath(path, NULL);
  return place->path ? TOOL_OK : outfile_failed(option, path);
}

static int find_new(const char *option, const char *path, struct place *place) {
  struct stat link;
  if (lstat(path, &link) == 0) {
    return complain("%s %s: is a link to a missing file; create that file, or name another", option, path);
  }
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  if (!*name) return complain("%s '%s': no file name; name a new file", option, path);
  char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
  char *resolved = folder ? realpath(folder, NULL) : NULL;
  free(folder);
  if (!resolved) return outfile_failed(option, path);
  if (asprintf(&place->path, "%s%s%s", resolved, strcmp(resolved, "/") == 0 ? "" : "/", name) < 0) place->path = NULL;
  free(resolved);
  return place->path ? TOOL_OK : complain("%s %s: out of memory", option, path);
}

static int find_place(const char *option, const char *path, struct place *place) {
  int status;
  if (stat(path, &place->already) == 0)
    status = find_existing(option, path, place);
  else if (errno == ENOENT)
    status = find_new(option, path, place);
  else
    return outfile_failed(option, path);
  if (status != TOOL_OK) return status;
  char *name = strrchr(place->path, '/');
  place->name = name + 1;
  *name = 0; /* the folder, for a moment */
  int failed = stat(name == place->path ? "/" : place->path, &place->folder);
  *name = '/';
  return failed ? outfile_failed(option, path) : TOOL_OK;
}

static const char *writer_of(const struct place *place) {
  for (int index = 0; index < count; index++) {
    const struct place *other = &files[index].place;
    if (place->exists && other->exists && is_same(&place->already, &other->already)) return files[index].option;
    if (is_same(&place->folder, &other->folder) && strcmp(place->name, other->name) == 0) return files[index].option;
  }
  return NULL;
}

static int check_free(const char *option, const char *path, const struct place *place) {
  const char *writer = writer_of(place);
  if (writer) return complain("%s %s: %s writes there too; name two files", option, path, writer);
  if (!place->exists) return TOOL_OK;
  for (int index = 0; index < input_count; index++) {
    if (inputs[index].device != place->already.st_dev || inputs[index].number != place->already.st_ino) continue;
    return complain("%s %s: %s reads this file; name another", option, path, inputs[index].role);
  }
  for (int descriptor = STDOUT_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
    struct stat stream;
    if (fstat(descriptor, &stream) != 0 || !is_same(&stream, &place->already)) continue;
    return complain("%s %s: standard %s goes there too; name another file", option, path,
                    descriptor == STDOUT_FILENO ? "output" : "error");
  }
  return TOOL_OK;
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

/* The permissions are those of the replaced file, else those of a new file. */
static mode_t permissions(const struct place *place) {
  if (place->exists) return place->already.st_mode & 0777;
  mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

static int open_temporary(struct outfile *out) {
  int folder = (int)(out->place.name - out->place.path);
  if (asprintf(&out->temporary, "%.*s.tare-XXXXXX", folder, out->place.path) < 0) {
    out->temporary = NULL;
    errno = ENOMEM;
    return -1;
  }
  signals_hold();
  int descriptor = mkostemp(out->temporary, O_CLOEXEC);
  if (descriptor >= 0) count++;
  signals_release();
  if (descriptor < 0 || fchmod(descriptor, permissions(&out->place)) != 0) return -1;
  out->file = fdopen(descriptor, "wb");
  return out->file ? 0 : -1;
}

static void forget(struct outfile *out) {
  if (out->file) fclose(out->file);
  free(out->temporary);
  free(out->place.path);
  *out = (struct outfile){0};
}

FILE *outfile_open(const char *option, const char *path) {
  if (count == MAX_FILES) {
    complain("%s %s: too many output files", option, path);
    return NULL;
  }
  struct outfile *out = &files[count];
  int before = count;
  *out = (struct outfile){.option = option, .given = path};
  int status = find_place(option, path, &out->place);
  if (status == TOOL_OK) status = check_free(option, path, &out->place);
  if (status == TOOL_OK && open_temporary(out) != 0) status = outfile_failed(option, path);
  if (status == TOOL_OK) return out->file;
  if (count == before) forget(out); /* else it is in the list, and goes with the others */
  return NULL;
}

/* Some file systems cannot synchronise, and say EINVAL; there the close has to do. */
int outfile_complete(void) {
  for (int index = 0; index < count; index++) {
    struct outfile *out = &files[index];
    if (!out->file) continue;
    int failed = fflush(out->file) != 0 || ferror(out->file) || (fsync(fileno(out->file)) != 0 && errno != EINVAL);
    int reason = errno;
    if (fclose(out->file) != 0 && !failed) failed = 1, reason = errno;
    out->file = NULL;
    errno = reason;
    if (failed) return outfile_failed(out->option, out->given);
  }
  return TOOL_OK;
}

int outfile_commit(void) {
  int status = outfile_complete();
  signals_hold(); /* all of them, or none */
  while (count > 0 && status == TOOL_OK) {
    struct outfile *out = &files[count - 1];
    if (rename(out->temporary, out->place.path) != 0) {
      status = outfile_failed(out->option, out->given);
    } else {
      count--;
      forget(out);
    }
  }
  signals_release();
  outfile_discard();
  return status;
}

void outfile_unlink(void) {
  for (int index = 0; index < count; index++) unlink(files[index].temporary);
}

void outfile_discard(void) {
  signals_hold();
  outfile_unlink();
  while (count > 0) forget(&files[--count]);
  signals_release();
}
