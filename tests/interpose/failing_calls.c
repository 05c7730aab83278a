/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that fail, for LD_PRELOAD: of those that open, write, close or rename a file, make a thread or load a library,
 * counted together, number TARE_FAIL_AT (1: the first). It makes the file TARE_FAIL_MARK, with the call's name in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long fail_at;
static const char *mark;
static atomic_long number;

__attribute__((constructor)) static void read_environment(void) {
  const char *at = getenv("TARE_FAIL_AT");
  mark = getenv("TARE_FAIL_MARK");
  fail_at = at != NULL ? strtol(at, NULL, 10) : 0;
  unsetenv("LD_PRELOAD"); /* gnuplot's calls are not meant */
}

static int fails(const char *call, int error) {
  if (fail_at == 0 || atomic_fetch_add(&number, 1) + 1 != fail_at) return 0;
  const int file = mark == NULL ? -1 : open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (file >= 0) {
    (void)!write(file, call, strlen(call));
    close(file);
  }
  errno = error;
  return 1;
}

/* As the C library does where it fails itself: for ferror. */
static int fails_on(FILE *stream, const char *call, int error) {
  enum { GLIBC_ERROR_SEEN = 0x20 };
  if (!fails(call, error)) return 0;
  if (stream != NULL) stream->_flags |= GLIBC_ERROR_SEEN;
  return 1;
}

#define REAL(name)               \
  static __typeof__(&name) real; \
  if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  REAL(pthread_create);
  return fails("pthread_create", EAGAIN) ? EAGAIN : real(thread, attributes, start, argument);
}

void *dlopen(const char *path, int mode) {
  REAL(dlopen);
  return fails("dlopen", ENOENT) ? NULL : real(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
  REAL(fopen);
  return fails("fopen", EMFILE) ? NULL : real(path, mode);
}

FILE *fdopen(int file, const char *mode) {
  REAL(fdopen);
  return fails("fdopen", ENOMEM) ? NULL : real(file, mode);
}

/* The file is closed, and the last of it not written. */
int fclose(FILE *stream) {
  REAL(fclose);
  const int failed = fails("fclose", ENOSPC), status = real(stream);
  if (!failed) return status;
  errno = ENOSPC;
  return EOF;
}

int fflush(FILE *stream) {
  REAL(fflush);
  return fails_on(stream, "fflush", ENOSPC) ? EOF : real(stream);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream) {
  REAL(fwrite);
  return fails_on(stream, "fwrite", ENOSPC) ? 0 : real(bytes, size, count, stream);
}

size_t fread(void *bytes, size_t size, size_t count, FILE *stream) {
  REAL(fread);
  return fails_on(stream, "fread", EIO) ? 0 : real(bytes, size, count, stream);
}

int fsync(int file) {
  REAL(fsync);
  return fails("fsync", EIO) ? -1 : real(file);
}

int mkostemp(char *path, int flags) {
  REAL(mkostemp);
  return fails("mkostemp", EACCES) ? -1 : real(path, flags);
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return fails("rename", EXDEV) ? -1 : real(from, to);
}
