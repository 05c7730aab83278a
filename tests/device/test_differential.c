/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random problems through the library and through the oracle: every loss, type, layout, label convention, weight,
 * normalizer and output, on the CPU by each instruction set. A failure ends with a line that repeats the one problem:
 * TARE_TEST_PROBLEM=N runs problem N alone.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/buffers.h"
#include "support/draw.h"
#include "support/head.h"

/* ---- Which problem it was ---------------------------------------------------------------------------------------- */

static char running[2048]; /* the line that repeats what runs now; empty: nothing does */

static void tell_what_ran(void) {
  if (running[0] != '\0') (void)!write(STDERR_FILENO, running, strlen(running));
  running[0] = '\0';
}

static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
enum { DEADLY = sizeof deadly / sizeof *deadly };
static struct sigaction usual[DEADLY];

static void tell_and_die(int number) {
  tell_what_ran();
  for (int i = 0; i < DEADLY; i++) {
    if (deadly[i] == number) sigaction(number, &usual[i], NULL);
  }
  if (number == SIGABRT) raise(number); /* the others come again when the instruction is repeated */
}

static void watch(void) {
  for (int i = 0; i < DEADLY; i++) {
    struct sigaction action = {.sa_handler = tell_and_die, .sa_flags = SA_NODEFER};
    sigaction(deadly[i], &action, &usual[i]);
  }
}

TestSuite(differential, .init = watch, .fini = tell_what_ran);

static void note(const problem *p, int64_t index, const test_device *device, const char *instruction_set) {
  char program[256] = "";
  if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) program[0] = '\0';
  snprintf(running, sizeof running,
           "to repeat: TARE_TEST_SEED=%llu TARE_TEST_PROBLEM=%lld TARE_TEST_DEVICES=%s%s%s %s\n  (%s)\n",
           (unsigned long long)random_seed(), (long long)index, device->name, instruction_set[0] ? " TARE_ISA=" : "",
           instruction_set, program, problem_text(p));
}

/* ---- One problem ------------------------------------------------------------------------------------------------- */

enum { STEPS = 3 };

static tare_context *context_of(const test_device *device, int64_t index) {
  return device_context(device, device->kind == TARE_DEVICE_CPU ? 1 + (int32_t)(index % 4) : 0);
}

/* Again on another number of threads: bit for bit. A state has moved on, so problems with one are left out. */
static void check_repeats(problem *p, const test_device *device, const outcome *first) {
  if (p->ghm_state != NULL || p->rows == 0) return;
  tare_context *const usual_context = p->context;
  p->context = device_context(device, device->kind == TARE_DEVICE_CPU ? 3 : 0);
  outcome *again = problem_run(p, device);
  CHECK_SAME_OUTCOME(p, again, first);
  outcome_free(again);
  tare_context_destroy(p->context);
  p->context = usual_context;
}

static void check_steps(problem *p, const test_device *device, int64_t index) {
  const int steps = p->ghm_state != NULL ? STEPS : 1;
  for (int step = 0; step < steps; step++) {
    outcome *got = problem_run(p, device);
    outcome *want = problem_expect(p);
    CHECK_OUTCOME(p, got, want);
    draw_check_state(p);
    if (index % 4 == 0) check_repeats(p, device, got);
    outcome_free(got);
    outcome_free(want);
  }
}

static void check_one(int64_t index, const test_device *device, bool heads, const char *instruction_set) {
  problem *p = draw_problem(index, heads);
  if (device_computes(device, p->loss.kind, p->dtype)) {
    note(p, index, device, instruction_set);
    buffers_against_wall((int)(index % 3));
    p->context = context_of(device, index);
    check_steps(p, device, index);
    tare_context_destroy(p->context);
    running[0] = '\0';
  }
  problem_free(p);
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

static int64_t how_many(const test_device *device) {
  const char *sweep = getenv("TARE_SWEEP");
  if (sweep != NULL && strcmp(sweep, "all") == 0) return device->kind == TARE_DEVICE_CPU ? 20000 : 2000;
  return device->kind == TARE_DEVICE_CPU ? test_size(400, 100) : 200;
}

static bool has_blas(const test_device *device) {
  problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2, 3, 4);
  outcome *o = problem_run(p, device);
  const bool there = o->status != TARE_STATUS_NO_BLAS;
  outcome_free(o);
  problem_free(p);
  return there;
}

/* Every fourth problem, so that four processes share them; or the one that is asked for, in the first of them. */
static void check_quarter(const test_device *device, int64_t quarter, const char *instruction_set) {
  const char *one = getenv("TARE_TEST_PROBLEM");
  const bool heads = has_blas(device), alone = one != NULL && *one != '\0';
  const int64_t count = how_many(device);
  for (int64_t index = quarter; index < count && !alone; index += 4) check_one(index, device, heads, instruction_set);
  if (alone && quarter == 0) check_one(strtoll(one, NULL, 10), device, heads, instruction_set);
}

static bool has_instruction_set(const char *name) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  tare_context *context = NULL;
  setenv("TARE_ISA", name, 1);
  const bool there = tare_context_create(&context, &options) == TARE_STATUS_OK;
  if (!there) fprintf(stderr, "SKIPPED %s: %s\n", name, tare_error_text(NULL));
  tare_context_destroy(context);
  return there;
}

static void check_every_set(const test_device *device, int64_t quarter) {
  static const char *const sets[] = {"baseline", "avx2", "avx512", "sve"};
  const char *given = getenv("TARE_ISA");
  char forced[32];
  snprintf(forced, sizeof forced, "%s", given == NULL ? "" : given);
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    if (forced[0] != '\0' && strcmp(forced, sets[i]) != 0) continue;
    if (has_instruction_set(sets[i])) check_quarter(device, quarter, sets[i]);
  }
}

static void check(int64_t quarter) {
  FOR_EACH_DEVICE(device) {
    if (device->kind == TARE_DEVICE_CPU) {
      check_every_set(device, quarter);
    } else {
      check_quarter(device, quarter, "");
    }
  }
}

Test(differential, first_quarter) { check(0); }
Test(differential, second_quarter) { check(1); }
Test(differential, third_quarter) { check(2); }
Test(differential, fourth_quarter) { check(3); }
