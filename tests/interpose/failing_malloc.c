/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An allocator that fails, for LD_PRELOAD: the allocation number TARE_FAIL_AT (1: the first) finds no memory, and with
 * TARE_FAIL_ON=1 every later one too. The first that fails makes the file TARE_FAIL_MARK. Counting begins with main:
 * the CUDA runtime's constructors do not survive a failure.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static long fail_at;
static int fail_on;
static const char *mark;
static atomic_long number;

typedef int program(int argc, char **argv, char **environment);
static program *real_main;

static void read_environment(void) {
  const char *at = getenv("TARE_FAIL_AT"), *on = getenv("TARE_FAIL_ON");
  mark = getenv("TARE_FAIL_MARK");
  fail_on = on != NULL && *on == '1';
  fail_at = at != NULL ? strtol(at, NULL, 10) : 0;
}

static int main_that_fails(int argc, char **argv, char **environment) {
  read_environment();
  return real_main(argc, argv, environment);
}

int __libc_start_main(program *start, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
  typedef int starter(program *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
  starter *real;
  *(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
  real_main = start;
  return real(main_that_fails, argc, argv, init, fini, rtld_fini, stack_end);
}

static int fails(void) {
  if (fail_at == 0) return 0;
  const long now = atomic_fetch_add(&number, 1) + 1;
  if (now < fail_at || (now > fail_at && !fail_on)) return 0;
  if (now == fail_at && mark != NULL) close(open(mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { return fails() ? NULL : __libc_realloc(memory, size); }
void *aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory != NULL ? 0 : ENOMEM;
}
