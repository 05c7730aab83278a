/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the cases of a test, each in a process of its own: the main of tests that run under qemu-user (criterion.h says
 * why). The options are those of Criterion that tests/harness/tally.sh and ./dev use: --tap=FILE, --filter SUITE/CASE
 * with wildcards, --list. TARE_TEST_SECONDS ends every case that takes longer, as a failure.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "criterion/criterion.h"

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/** What the process of a case tells; shared with it. */
typedef struct told {
  int failed, skipped, finished;
  char why[256];
} told;

static told *told_by_case;
static runner_case *first, **end = &first;

void runner_add(runner_case *added) {
  *end = added;
  end = &added->next;
}

/* ---- In the process of a case ------------------------------------------------------------------------------------ */

static _Noreturn void leave(void) {
  fflush(NULL);
  _exit(0);
}

void runner_fail(bool ends, const char *file, int line, const char *condition, const char *format, ...) {
  va_list list;
  told_by_case->failed++;
  fprintf(stderr, "%s:%d: failed: %s:", file, line, condition);
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  if (ends) leave();
}

void runner_skip(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(told_by_case->why, sizeof told_by_case->why, format, list);
  va_end(list);
  told_by_case->skipped = 1;
  leave();
}

static const runner_options *suite_of(const runner_case *test) {
  static const runner_options none;
  for (const runner_case *c = first; c != NULL; c = c->next)
    if (c->run == NULL && strcmp(c->suite, test->suite) == 0) return &c->options;
  return &none;
}

static _Noreturn void run_here(const runner_case *test) {
  const runner_options *suite = suite_of(test), *own = &test->options;
  const char *limit = getenv("TARE_TEST_SECONDS");
  double seconds = limit == NULL ? 0 : strtod(limit, NULL);
  if (!(seconds > 0)) seconds = 4 * (own->timeout > 0 ? own->timeout : suite->timeout); /* meant for the machine */
  if (seconds > 0) alarm((unsigned)ceil(seconds));
  if (suite->init != NULL) suite->init();
  if (own->init != NULL) own->init();
  test->run();
  if (own->fini != NULL) own->fini();
  if (suite->fini != NULL) suite->fini();
  told_by_case->finished = 1;
  leave();
}

/* ---- In the process of all cases --------------------------------------------------------------------------------- */

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/** Runs it and writes its line. Whether it passed or was skipped. */
static bool run_case(const runner_case *test, FILE *tap) {
  int status = -1;
  memset(told_by_case, 0, sizeof *told_by_case);
  fflush(NULL);
  const double start = now();
  const pid_t child = fork();
  if (child == 0) run_here(test);
  if (child > 0) waitpid(child, &status, 0);
  const told *t = told_by_case;
  const bool ended = WIFEXITED(status) && WEXITSTATUS(status) == 0 && (t->finished || t->skipped || t->failed);
  const bool good = ended && t->failed == 0;
  if (!ended && WIFSIGNALED(status))
    fprintf(stderr, "%s/%s: ended by signal %d\n", test->suite, test->name, WTERMSIG(status));
  else if (!ended)
    fprintf(stderr, "%s/%s: its process ended early, status %d\n", test->suite, test->name, status);
  if (good && t->skipped)
    fprintf(tap, "ok - %s::%s # SKIP %s\n", test->suite, test->name, t->why);
  else
    fprintf(tap, "%s - %s::%s (%.2fs)\n", good ? "ok" : "not ok", test->suite, test->name, now() - start);
  return good;
}

static bool chosen(const runner_case *test, const char *filter) {
  char name[512];
  snprintf(name, sizeof name, "%s/%s", test->suite, test->name);
  return test->run != NULL && fnmatch(filter, name, 0) == 0;
}

static int run_cases(const char *filter, FILE *tap) {
  int cases = 0, failed = 0;
  for (const runner_case *c = first; c != NULL; c = c->next) cases += chosen(c, filter);
  fprintf(tap, "1..%d\n", cases);
  for (const runner_case *c = first; c != NULL; c = c->next)
    if (chosen(c, filter)) failed += !run_case(c, tap);
  printf("%d cases, %d failed\n", cases, failed);
  return failed > 0 || cases == 0;
}

int main(int count, char **arguments) {
  const char *filter = "*";
  FILE *tap = stdout;
  for (int i = 1; i < count; i++) {
    if (strncmp(arguments[i], "--tap=", 6) == 0) {
      tap = fopen(arguments[i] + 6, "w");
    } else if (strcmp(arguments[i], "--filter") == 0 && i + 1 < count) {
      filter = arguments[++i];
    } else if (strcmp(arguments[i], "--list") == 0) {
      for (const runner_case *c = first; c != NULL; c = c->next)
        if (c->run != NULL) printf("%s/%s\n", c->suite, c->name);
      return 0;
    } else {
      fprintf(stderr, "%s: '%s' is not understood; there are --tap=FILE, --filter SUITE/CASE, --list\n", arguments[0],
              arguments[i]);
      return 2;
    }
  }
  told_by_case = mmap(NULL, sizeof *told_by_case, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (tap == NULL || told_by_case == MAP_FAILED) {
    perror(arguments[0]);
    return 2;
  }
  const int status = run_cases(filter, tap);
  return fclose(tap) == 0 ? status : 2;
}
