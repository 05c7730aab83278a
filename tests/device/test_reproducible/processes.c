/* SPDX-License-Identifier: Apache-2.0 */
/* After a fork, and with numbers of threads from the environment. */
#define _GNU_SOURCE
#include "reproducible.h"

/* ---- After fork ------------------------------------------------------------------------------------------------ */

/* In the child: no assertion of the test framework, which belongs to the parent. */
static void report_from_child(problem *p, const test_device *device, const outcome *want, int out) {
  tare_context *fresh = device_context(device, 2);
  outcome *inherited = problem_run(p, device);
  outcome *own = run_in(p, device, fresh);
  const size_t bytes = (size_t)(p->rows * p->classes) * sizeof(double);
  const char same = inherited->status == TARE_STATUS_OK && own->status == TARE_STATUS_OK &&
                    inherited->loss == want->loss && own->loss == want->loss &&
                    memcmp(inherited->gradient, want->gradient, bytes) == 0 &&
                    memcmp(own->gradient, want->gradient, bytes) == 0;
  const ssize_t written = write(out, &same, 1);
  _exit(written == 1 ? 0 : 1);
}

Test(reproducible, a_forked_child_computes_the_same) {
  if (test_under_qemu()) cr_skip_test("a process with threads cannot fork under qemu-user");
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue; /* CUDA does not survive a fork */
    problem *p = problem_in(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, FLAT);
    tare_context *many = device_context(device, 4);
    outcome *want = run_in(p, device, many); /* the parent's threads exist now */
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    cr_assert_neq(child, -1);
    p->context = many;
    if (child == 0) report_from_child(p, device, want, ends[1]);
    p->context = NULL;
    struct pollfd wait_for = {.fd = ends[0], .events = POLLIN};
    const int ready = poll(&wait_for, 1, 60000);
    if (ready != 1) kill(child, SIGKILL);
    cr_assert_eq(ready, 1, "the child hangs");
    char same = 0;
    close(ends[1]);
    cr_assert_eq(read(ends[0], &same, 1), 1, "the child ended without an answer");
    waitpid(child, NULL, 0);
    cr_assert_eq(same, 1, "the child computed something else");
    close(ends[0]);
    expect_same(p, device, many, want); /* and the parent goes on */
    tare_context_destroy(many);
    outcome_free(want);
    problem_free(p);
  }
}

static int threads_now(void) {
  struct stat tasks; /* two links, and one more for each thread */
  return stat("/proc/self/task", &tasks) == 0 ? (int)tasks.st_nlink - 2 : 0;
}

/* In a process of its own: the same bits within a minute, and the same in its own child. */
static bool agrees_in_children(problem *p, const test_device *device, tare_context *context, const outcome *want,
                               int generations) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60); /* ends a child that waits for threads that are not there */
    outcome *o = run_in(p, device, context);
    const bool same = o->status == TARE_STATUS_OK && o->loss == want->loss &&
                      memcmp(o->gradient, want->gradient, (size_t)o->elements * sizeof *o->gradient) == 0;
    _exit(same && (generations == 1 || agrees_in_children(p, device, context, want, generations - 1)) ? 0 : 1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* At a size that threads share, whatever TARE_TEST_SMALL says: one tile alone would run on one. */
Test(reproducible, a_forked_child_does_not_wait_for_lost_threads) {
  if (test_under_qemu()) cr_skip_test("a process with threads cannot fork under qemu-user");
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    for (int32_t threads = 2; threads <= 4; threads += 2) {
      FOR_EACH_LOSS(kind) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 4100, 16);
        tare_context *context = device_context(device, threads);
        outcome *want = run_in(p, device, context);
        cr_assert_geq(threads_now(), threads, "the call ran on %d threads", threads_now());
        cr_assert(agrees_in_children(p, device, context, want, 2), "%s on %d threads: in a forked child",
                  problem_text(p), threads);
        expect_same(p, device, context, want);
        tare_context_destroy(context);
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

static int32_t threads_of(tare_context *context) {
  tare_context_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_context_describe(context, &d), TARE_STATUS_OK);
  return d.threads;
}

/* A context keeps the number that it found. What is no number, or none above 0, is as if it were not there. */
Test(reproducible, threads_of_the_environment) {
  static const char *const texts[] = {"3", "5,2", " 7", "2000", "", "many", "-4", "0"};
  static const int32_t wanted[] = {3, 5, 7, 1024, 0, 0, 0, 0};
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    unsetenv("OMP_NUM_THREADS");
    tare_context *context = device_context(device, 0);
    const int32_t all = threads_of(context);
    cr_assert_geq(all, 1);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
      setenv("OMP_NUM_THREADS", texts[i], 1);
      tare_context *next = device_context(device, 0);
      cr_assert_eq(threads_of(next), wanted[i] ? wanted[i] : all, "'%s'", texts[i]);
      cr_assert_eq(threads_of(context), all);
      tare_context_destroy(next);
    }
    tare_context_destroy(context);
  }
}

/* The pool has as many threads as one call wants beside its own, however many calls there are. */
Test(reproducible, calls_share_the_threads) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    const int before = threads_now();
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 8200, 16);
    for (int i = 0; i < 5; i++) {
      tare_context *context = device_context(device, 5);
      outcome_free(run_in(p, device, context));
      tare_context_destroy(context);
    }
    cr_assert_leq(threads_now(), before + 4);
    problem_free(p);
  }
}
