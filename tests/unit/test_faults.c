/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library when the system fails. When a context is created, each allocation fails once. A call on a context
 * allocates nothing. Only the fused head makes threads, and it works with fewer. A BLAS that cannot be loaded is
 * reported, and everything else works. The linker replaces the library's own calls by these functions (--wrap).
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "support/head.h"
#include "support/problem.h"

/* ---- Calls that fail --------------------------------------------------------------------------------------------- */

enum { ALLOCATIONS = 1, THREADS = 2, LIBRARIES = 4 };

static atomic_int watched, seen; /* which calls count; how many there were */
static atomic_int failing;       /* the number of the one that fails, from 1; 0: none; below 0: all */

static bool fails(int kind) {
  if (!(atomic_load(&watched) & kind)) return false;
  const int number = atomic_fetch_add(&seen, 1) + 1;
  return atomic_load(&failing) < 0 || number == atomic_load(&failing);
}

static void watch(int kinds, int number) {
  atomic_store(&seen, 0);
  atomic_store(&failing, number);
  atomic_store(&watched, kinds);
}

/** How many calls there were. */
static int unwatch(void) {
  atomic_store(&watched, 0);
  return atomic_load(&seen);
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
void *__real_dlopen(const char *path, int mode);

void *__wrap_malloc(size_t bytes) { return fails(ALLOCATIONS) ? NULL : __real_malloc(bytes); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails(ALLOCATIONS) ? NULL : __real_calloc(count, bytes); }
void *__wrap_realloc(void *memory, size_t bytes) { return fails(ALLOCATIONS) ? NULL : __real_realloc(memory, bytes); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
  return fails(ALLOCATIONS) ? NULL : __real_aligned_alloc(alignment, bytes);
}
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes) {
  return fails(ALLOCATIONS) ? ENOMEM : __real_posix_memalign(memory, alignment, bytes);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  return fails(THREADS) ? EAGAIN : __real_pthread_create(thread, attributes, start, argument);
}
void *__wrap_dlopen(const char *path, int mode) { return fails(LIBRARIES) ? NULL : __real_dlopen(path, mode); }

/* The CPU alone: what CUDA's calls do when they fail is test_faults_gpu's. */
static test_device *the_cpu(void) {
  setenv("TARE_TEST_DEVICES", "cpu", 1);
  return devices_first();
}
#define FOR_THE_CPU(device) for (test_device *device = the_cpu(); device != NULL; device = devices_next(device))

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

static tare_status make_context(const test_device *device, tare_context **context) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device->kind;
  options.threads = 3;
  return tare_context_create(context, &options);
}

Test(faults, a_context_without_memory) {
  FOR_THE_CPU(device) {
    for (int number = 1, reached = 1; reached; number++) {
      tare_context *context = NULL;
      watch(ALLOCATIONS, number);
      const tare_status status = make_context(device, &context);
      reached = unwatch() >= number;
      if (!reached) {
        cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(NULL));
        cr_assert_gt(number, 2, "a context allocates");
        tare_context_destroy(context);
        break;
      }
      cr_assert_eq(status, TARE_STATUS_OUT_OF_MEMORY, "allocation %d: %s", number, tare_status_name(status));
      cr_assert_null(context);
      cr_assert_neq(tare_error_text(NULL)[0], '\0', "allocation %d: no text", number);
      cr_assert_eq(make_context(device, &context), TARE_STATUS_OK, "after allocation %d: %s", number,
                   tare_error_text(NULL));
      tare_context_destroy(context);
    }
  }
}

/* The system makes no thread, or not the second, or all. The numbers are the same. */
Test(faults, a_context_does_with_fewer_threads) {
  static const int faults[] = {-1, 2, 0};
  FOR_THE_CPU(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 5000, 16);
    outcome *want = problem_run(p, device);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
      watch(THREADS, faults[i]);
      tare_context *context = device_context(device, 40);
      cr_assert_gt(unwatch(), 0, "a context makes threads");
      p->context = context;
      outcome *o = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, o, want);
      outcome_free(o);
      p->context = NULL;
      tare_context_destroy(context);
    }
    outcome_free(want);
    problem_free(p);
  }
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

static tare_status without_memory(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                  const tare_output *output, void *user) {
  watch(ALLOCATIONS | THREADS | LIBRARIES, -1);
  const tare_status status = tare_evaluate(context, loss, batch, output, NULL);
  *(int *)user = unwatch();
  return status;
}

static void check_without_memory(problem *p, const test_device *device) {
  int calls = -1;
  p->call = without_memory;
  p->user = &calls;
  CHECK_PROBLEM(p, device);
  cr_assert_eq(calls, 0, "%s: %d calls that allocate", problem_text(p), calls);
  problem_free(p);
}

Test(faults, evaluations_allocate_nothing) {
  static const level_shape shapes[] = {{9, 7, 3}, {5, 4, 3}};
  FOR_THE_CPU(device) {
    FOR_EACH_LOSS(kind) {
      check_without_memory(problem_new(kind, TARE_DTYPE_F32, 300, 20), device);
      check_without_memory(problem_new(kind, TARE_DTYPE_F64, 3, 9000), device);
      problem *p = problem_new_levels(kind, TARE_DTYPE_F16, 2, 5, 2, shapes);
      for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = true;
      check_without_memory(p, device);
    }
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 60, 7);
    p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    check_without_memory(p, device);
  }
}

/* ---- Fused heads ------------------------------------------------------------------------------------------------- */

static tare_status without_blas(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                const tare_linear *linear, const tare_output *output, void *user) {
  (void)user;
  watch(LIBRARIES, -1);
  const tare_status status = tare_linear_evaluate(context, loss, batch, linear, output, NULL);
  unwatch();
  return status;
}

Test(faults, a_blas_that_cannot_be_loaded) {
  FOR_THE_CPU(device) {
    problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20, 5, 4);
    p->head->call = without_blas;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_NO_BLAS, "%s", tare_status_name(o->status));
    cr_assert_neq(o->text[0], '\0');
    outcome_free(o);
    problem_free(p);
    problem *plain = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20, 5);
    CHECK_PROBLEM(plain, device);
    problem_free(plain);
  }
}
