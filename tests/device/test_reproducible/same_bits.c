/* SPDX-License-Identifier: Apache-2.0 */
/* The same bits for any number of threads, in every run, context, instruction set and place. */
#define _GNU_SOURCE
#include "reproducible.h"

/* ---- Threads, runs, contexts ----------------------------------------------------------------------------------- */

static void check_threads(const test_device *device, int32_t dtype) {
  tare_context *contexts[] = {device_context(device, 1), device_context(device, 2), device_context(device, 7)};
  FOR_EACH_LOSS(kind) {
    for (int layout = FLAT; layout < LAYOUTS; layout++) {
      if (!test_is_due(kind, layout)) continue;
      problem *p = problem_in(kind, dtype, layout);
      p->loss_dtype = TARE_DTYPE_F64;
      outcome *first = run_in(p, device, contexts[0]);
      for (size_t c = 0; c < 3; c++) {
        expect_same(p, device, contexts[c], first);
        expect_same(p, device, contexts[c], first);
      }
      outcome_free(first);
      problem_free(p);
    }
  }
  for (size_t c = 0; c < 3; c++) tare_context_destroy(contexts[c]);
}

Test(reproducible, any_number_of_threads_f32) { FOR_EACH_DEVICE(device) check_threads(device, TARE_DTYPE_F32); }

Test(reproducible, any_number_of_threads_f16) { FOR_EACH_DEVICE(device) check_threads(device, TARE_DTYPE_F16); }

Test(reproducible, any_number_of_threads_f64) { FOR_EACH_DEVICE(device) check_threads(device, TARE_DTYPE_F64); }

Test(reproducible, ghm_of_any_density_and_momentum) {
  FOR_EACH_DEVICE(device) {
    tare_context *contexts[] = {device_context(device, 1), device_context(device, 2), device_context(device, 7)};
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (int32_t density = TARE_GHM_DENSITY_UNIT_REGION; density <= TARE_GHM_DENSITY_EXACT; density++) {
        problem *p = problem_in(kind, TARE_DTYPE_F32, FLAT);
        p->loss.ghm.density = density;
        p->loss.ghm.bins = 100;
        outcome *first = run_in(p, device, contexts[0]);
        for (size_t c = 0; c < 3; c++) expect_same(p, device, contexts[c], first);
        outcome_free(first);
        problem_free(p);
      }
    }
    for (size_t c = 0; c < 3; c++) tare_context_destroy(contexts[c]);
  }
}

/* Scratch that another call has used leaves no trace. */
Test(reproducible, calls_between_leave_no_trace) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_in(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, FLAT);
    outcome *first = problem_run(p, device);
    FOR_EACH_LOSS(kind) {
      for (int layout = FLAT; layout < LAYOUTS; layout++) {
        problem *between = problem_in(kind, TARE_DTYPE_F32, layout);
        outcome_free(problem_run(between, device));
        problem_free(between);
        expect_same(p, device, NULL, first);
      }
    }
    outcome_free(first);
    problem_free(p);
  }
}

/* ---- Instruction sets ------------------------------------------------------------------------------------------ */

static bool use_instruction_set(const test_device *device, const char *name) {
  setenv("TARE_ISA", name, 1);
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device->kind;
  tare_context *context = NULL;
  const tare_status status = tare_context_create(&context, &options);
  unsetenv("TARE_ISA");
  if (status == TARE_STATUS_INVALID_ARGUMENT) {
    fprintf(stderr, "SKIPPED instruction set %s: %s\n", name, tare_error_text(NULL));
    return false;
  }
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", name, tare_error_text(NULL));
  tare_context_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_context_describe(context, &d), TARE_STATUS_OK);
  cr_assert_str_eq(d.instruction_set, name);
  for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_F64; dtype++) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, dtype, test_size(1000, 60), 23);
      p->context = context;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
  tare_context_destroy(context);
  return true;
}

Test(reproducible, every_instruction_set) {
  static const char *const names[] = {"baseline", "avx2", "avx512", "sve"};
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    int ran = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) ran += use_instruction_set(device, names[i]);
    cr_assert_geq(ran, 1, "not even baseline runs");
  }
}

/* ---- Several contexts at once ---------------------------------------------------------------------------------- */

enum { WORKERS = 5, ROUNDS = 4 };

typedef struct worker {
  pthread_t thread;
  const test_device *device;
  problem *p;
  outcome *outcomes[ROUNDS];
} worker;

static void *work(void *argument) {
  worker *w = argument;
  tare_context *context = device_context(w->device, 2);
  for (int i = 0; i < ROUNDS; i++) w->outcomes[i] = run_in(w->p, w->device, context);
  tare_context_destroy(context);
  return NULL;
}

Test(reproducible, contexts_in_several_threads_at_once) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      worker workers[WORKERS];
      problem *p = problem_in(kind, TARE_DTYPE_F32, CHANNELS_FIRST);
      outcome *alone = problem_run(p, device);
      for (int w = 0; w < WORKERS; w++) {
        workers[w] = (worker){.device = device, .p = problem_in(kind, TARE_DTYPE_F32, CHANNELS_FIRST)};
        cr_assert_eq(pthread_create(&workers[w].thread, NULL, work, &workers[w]), 0);
      }
      for (int w = 0; w < WORKERS; w++) {
        pthread_join(workers[w].thread, NULL);
        for (int i = 0; i < ROUNDS; i++) {
          CHECK_SAME_OUTCOME(p, workers[w].outcomes[i], alone);
          outcome_free(workers[w].outcomes[i]);
        }
        problem_free(workers[w].p);
      }
      outcome_free(alone);
      problem_free(p);
    }
  }
}

/* ---- Wherever an array begins ------------------------------------------------------------------------------------ */

Test(reproducible, at_any_alignment) {
  static const int64_t widths[] = {3, 21, 81, 200};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int64_t i = 0; i < 8; i++) {
        problem *p = problem_new(kind, i % 2 ? TARE_DTYPE_F16 : TARE_DTYPE_F32, 40, widths[i / 2]);
        outcome *want = problem_run(p, device);
        for (int64_t phase = 1; phase < 8; phase += 2) {
          p->place[ARRAY_LOGITS].phase = p->place[ARRAY_GRADIENT].phase = phase;
          outcome *got = problem_run(p, device);
          CHECK_SAME_OUTCOME(p, got, want);
          outcome_free(got);
        }
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}
