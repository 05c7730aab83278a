/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the program's own threads (tare_use_threads): the same bits, whatever the program's function does. */
#define _GNU_SOURCE
#include "reproducible.h"
#include "support/region.h"

enum { THREADS = 3, MORE = REGION_MAX_OTHERS };

static atomic_int regions, wrong_arguments;

static void run_on(int others, void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  atomic_fetch_add(&regions, 1);
  if (threads != THREADS || flags != 0) atomic_fetch_add(&wrong_arguments, 1);
  region_run(others, region, argument);
}

static void run_on_as_many(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  run_on(THREADS - 1, region, argument, threads, flags);
}
static void run_on_caller(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  run_on(0, region, argument, threads, flags);
}
static void run_on_too_many(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  run_on(MORE, region, argument, threads, flags);
}
static void run_nothing(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  (void)region, (void)argument, (void)threads, (void)flags;
  atomic_fetch_add(&regions, 1);
}

/* Large enough for several pieces, whatever TARE_TEST_SMALL says. */
static problem *shared_problem(int32_t kind) { return problem_new(kind, TARE_DTYPE_F32, 8200, 16); }

static void check_with(const test_device *device, tare_parallel_function *parallel) {
  tare_context *context = device_context(device, THREADS);
  FOR_EACH_LOSS(kind) {
    problem *p = shared_problem(kind);
    outcome *first = run_in(p, device, context);
    tare_use_threads(parallel);
    for (int i = 0; i < 3; i++) expect_same(p, device, context, first);
    tare_use_threads(NULL);
    outcome_free(first);
    problem_free(p);
  }
  tare_context_destroy(context);
}

static void check_every_device_with(tare_parallel_function *parallel) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue; /* a GPU's call has no threads */
    atomic_store(&regions, 0);
    check_with(device, parallel);
    cr_assert_gt(atomic_load(&regions), 0, "the program's threads were never used");
    cr_assert_eq(atomic_load(&wrong_arguments), 0, "threads is not the context's, or flags not 0");
  }
}

Test(program_threads, as_many_as_asked_for) { check_every_device_with(run_on_as_many); }
Test(program_threads, the_caller_alone) { check_every_device_with(run_on_caller); }
Test(program_threads, more_than_asked_for) { check_every_device_with(run_on_too_many); }
Test(program_threads, none_at_all) { check_every_device_with(run_nothing); }

Test(program_threads, one_thread_needs_no_region) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    tare_context *context = device_context(device, 1);
    problem *p = shared_problem(TARE_LOSS_SIGMOID_FOCAL);
    tare_use_threads(run_on_as_many);
    outcome_free(run_in(p, device, context));
    cr_assert_eq(atomic_load(&regions), 0);
    problem_free(p);
    tare_context_destroy(context);
  }
}

/* A child has none of the program's threads: a runtime that waits for them would hang. */
Test(program_threads, a_forked_child_uses_the_pool) {
  if (test_under_qemu()) cr_skip_test("a process with threads cannot fork under qemu-user");
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    tare_use_threads(run_on_as_many);
    const pid_t child = fork();
    cr_assert_neq(child, -1);
    if (child == 0) {
      alarm(60);
      tare_context *context = device_context(device, THREADS);
      problem *p = shared_problem(TARE_LOSS_SIGMOID_FOCAL);
      const outcome *o = run_in(p, device, context);
      _exit(o->status == TARE_STATUS_OK && atomic_load(&regions) == 0 ? 0 : 1);
    }
    int status = 1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "the child used the parent's threads, or failed");
    tare_use_threads(NULL);
  }
}

/* A function that makes the caller wait costs some calls, not all: after a loss the caller works alone for a while. */
static void run_late(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  run_on_caller(region, argument, threads, flags);
  usleep(20000);
}

Test(program_threads, threads_that_do_not_pay_are_left_out) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    tare_context *context = device_context(device, THREADS);
    problem *p = shared_problem(TARE_LOSS_SIGMOID_CE);
    tare_use_threads(run_late);
    for (int i = 0; i < 40; i++) outcome_free(run_in(p, device, context));
    const int used = atomic_load(&regions);
    cr_assert(used > 0 && used < 40, "%d of 40 calls waited", used);
    tare_use_threads(NULL);
    problem_free(p);
    tare_context_destroy(context);
  }
}
