/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GHM loss whose logits fit in the second-level cache is counted and evaluated by one cooperative launch, any other
 * by two launches. Emulated devices with a small and a large cache take the same batch in both ways. The results are
 * the same, and a launch that fails does not change the results of a later one.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "support/problem.h"

#ifdef TARE_TEST_EMULATED
#include "control.h"
#endif

#ifdef TARE_TEST_EMULATED

static const level_shape maps[] = {{21, 20, 3}, {12, 9, 3}, {3, 2, 3}};

static problem *add_state(problem *p, int32_t bins) {
  p->loss.ghm.bins = bins;
  p->loss.ghm.momentum = 0.75;
  problem_add_ghm_state(p);
  return p;
}

/* Some 200 KiB more or less, so that the tiny device's cache of 256 KiB decides. */
static problem *flat(int32_t kind, int32_t dtype, int32_t bins) {
  return add_state(problem_new(kind, dtype, dtype == TARE_DTYPE_F32 ? 2600 : 5200, 23), bins);
}

static problem *channels_first(int32_t kind, int32_t dtype, int32_t bins) {
  problem *p = problem_new_levels(kind, dtype, dtype == TARE_DTYPE_F32 ? 1 : 2, 34, 3, maps);
  for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = true;
  return add_state(p, bins);
}

typedef struct result {
  outcome *outcome;
  uint64_t state[2 + 3 * 1024];
  uint64_t kernels;
} result;

/* Two steps from a fresh state on a device of this profile. */
static result run_on_profile(problem *p, const test_device *device, const char *profile) {
  result r = {0};
  const uint64_t bytes = tare_ghm_state_bytes(p->loss.ghm.bins);
  cr_assert(tare_emulator_set_profile(profile));
  p->context = device_context(device, 0);
  p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_COUNTS); /* row losses take another walk, counts another kernel */
  memset(p->ghm_state, 0, bytes);
  for (int step = 0; step < 2; step++) {
    if (r.outcome) outcome_free(r.outcome);
    const uint64_t before = tare_emulator_kernels_run();
    r.outcome = problem_run(p, device);
    r.kernels = tare_emulator_kernels_run() - before;
  }
  memcpy(r.state, p->ghm_state, bytes);
  tare_context_destroy(p->context);
  p->context = NULL;
  tare_emulator_set_profile("tiny");
  return r;
}

static void expect_same(const problem *p, const result *got, const result *want) {
  CHECK_SAME_OUTCOME(p, got->outcome, want->outcome);
  cr_assert_arr_eq(got->state, want->state, tare_ghm_state_bytes(p->loss.ghm.bins), "%s: another state",
                   problem_text(p));
}

static void check_both_ways(problem *p, const test_device *device, bool tiny_takes_one) {
  const result tiny = run_on_profile(p, device, "tiny"), large = run_on_profile(p, device, "h100");
  cr_assert_eq(large.kernels, 1u, "%s: %d launches", problem_text(p), (int)large.kernels);
  cr_assert_eq(tiny.kernels, tiny_takes_one ? 1u : 2u, "%s: %d launches", problem_text(p), (int)tiny.kernels);
  expect_same(p, &tiny, &large);
  outcome_free(tiny.outcome);
  outcome_free(large.outcome);

  memset(p->ghm_state, 0, tare_ghm_state_bytes(p->loss.ghm.bins));
  CHECK_PROBLEM(p, device); /* and it is right */
  problem_free(p);
}

Test(ghm_gpu, one_launch_is_two_launches) {
  static const int32_t bins[] = {1, 10, 30, 1024};
  FOR_EACH_GPU(device) {
    for (size_t b = 0; b < sizeof bins / sizeof *bins; b++) {
      check_both_ways(flat(TARE_LOSS_GHM_C, TARE_DTYPE_F32, bins[b]), device, false);
      check_both_ways(flat(TARE_LOSS_GHM_C, TARE_DTYPE_BF16, bins[b]), device, false);
      check_both_ways(channels_first(TARE_LOSS_GHM_C, TARE_DTYPE_F32, bins[b]), device, false);
      check_both_ways(channels_first(TARE_LOSS_GHM_C, TARE_DTYPE_F16, bins[b]), device, false);
      check_both_ways(flat(TARE_LOSS_GHM_R, TARE_DTYPE_F32, bins[b]), device, false);
    }
    check_both_ways(add_state(problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 2000, 23), 30), device, true);
    check_both_ways(add_state(problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F16, 2000, 4), 10), device, true);
  }
}

Test(ghm_gpu, in_place_and_with_masks) {
  FOR_EACH_GPU(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = flat(kind, TARE_DTYPE_F32, 30);
      p->in_place = true;
      problem_draw_row_weights(p);
      check_both_ways(p, device, false);
      p = channels_first(kind, TARE_DTYPE_F16, 30);
      p->in_place = true;
      problem_draw_row_weights(p);
      check_both_ways(p, device, false);
    }
  }
}

/* Where somebody else holds part of the GPU, so that not all blocks can be resident, two launches do it. */
Test(ghm_gpu, no_room_for_all_blocks) {
  FOR_EACH_GPU(device) {
    problem *p = flat(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 30);
    const result alone = run_on_profile(p, device, "h100");
    tare_emulator_fail("cudaLaunchKernelExC", 1, cudaErrorCooperativeLaunchTooLarge);
    const result crowded = run_on_profile(p, device, "h100");
    cr_assert_eq(alone.kernels, 1u);
    cr_assert_eq(crowded.kernels, 2u);
    cr_assert_eq(cudaPeekAtLastError(), cudaSuccess, "an error was left behind");
    expect_same(p, &crowded, &alone);
    outcome_free(alone.outcome);
    outcome_free(crowded.outcome);
    problem_free(p);
  }
}

static tare_status fail_after(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                              const tare_output *output, void *launches) {
  tare_emulator_fail("cudaLaunchKernelExC", *(const unsigned *)launches, cudaErrorLaunchOutOfResources);
  return tare_evaluate(context, loss, batch, output, NULL);
}

/* Whichever launch of a call fails, the status says so and the context serves on as if nothing had happened. */
Test(ghm_gpu, a_launch_that_fails_leaves_the_context_as_it_was) {
  FOR_EACH_GPU(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (unsigned launches = 0; launches < 3; launches++) {
        problem *p = flat(kind, TARE_DTYPE_F32, 30);
        problem_draw_row_weights(p);
        p->want &= ~(unsigned)WANT_ROW_LOSS;
        p->call = fail_after;
        p->user = &launches;
        outcome *o = problem_run(p, device);
        cr_assert_eq(o->status, TARE_STATUS_CUDA_ERROR, "launch %u: %s", launches, tare_status_name(o->status));
        outcome_free(o);
        p->call = NULL;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

#else

Test(ghm_gpu, one_launch_is_two_launches) { cr_skip_test("a real GPU's cache has one size; the emulator's has two"); }

#endif
