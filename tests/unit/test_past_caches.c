/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients that no cache holds are stored past the caches. Here every gradient is, as the last cache is said to be
 * smaller than any batch: the results are the same bits, whatever the type, the layout, and where the arrays begin.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/past_caches.h"
#include "support/problem.h"

enum { FIT = 0, EXCEED = 1 };

static void say_batches(int what) { atomic_store(&tare_last_cache, what == FIT ? INT64_MAX / 2 : INT64_MIN / 2); }

/* Rows end within a cache line, and arrays begin within one. NCHW with two images. */
static problem *problem_of(int32_t kind, int32_t dtype, int64_t classes, int layout) {
  const level_shape shape = {.height = 9, .width = 17, .anchors = 1};
  problem *p =
      layout == 2 ? problem_new_levels(kind, dtype, 2, classes, 1, &shape) : problem_new(kind, dtype, 211, classes);
  if (layout == 2) p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
  if (layout == 1) p->place[ARRAY_GRADIENT].phase = 3;
  if (layout == 3) p->place[ARRAY_GRADIENT].pad[AXIS_CLASS] = 5;
  p->in_place = layout == 4;
  return p;
}

static void check_losses(int32_t dtype) {
  static const int64_t classes[] = {1, 4, 70, 80, 1203};
  setenv("TARE_TEST_DEVICES", "cpu", 1);
  FOR_EACH_DEVICE(device)
  FOR_EACH_LOSS(kind) {
    for (size_t c = 0; c < sizeof classes / sizeof *classes; c++)
      for (int layout = 0; layout < 5; layout++) {
        if ((classes[c] > 80 || test_small()) && !test_is_due(kind, layout + (int)c)) continue;
        problem *p = problem_of(kind, dtype, classes[c], layout);
        say_batches(FIT);
        outcome *want = problem_run(p, device);
        say_batches(EXCEED);
        outcome *o = problem_run(p, device);
        CHECK_SAME_OUTCOME(p, o, want);
        outcome_free(want);
        outcome_free(o);
        problem_free(p);
      }
  }
}

Test(past_caches, f32) { check_losses(TARE_DTYPE_F32); }

Test(past_caches, bf16) { check_losses(TARE_DTYPE_BF16); }

Test(past_caches, f64) { check_losses(TARE_DTYPE_F64); }

/* Bytes around those that are written stay as they are. */
Test(past_caches, any_part_of_a_buffer) {
  enum { SIZE = 400 };
  _Alignas(64) unsigned char buffer[SIZE], from[SIZE], want[SIZE];
  for (int i = 0; i < SIZE; i++) from[i] = (unsigned char)(i * 7 + 1);
  for (size_t start = 0; start < 130; start++)
    for (size_t bytes = 0; start + bytes < SIZE; bytes += 1 + bytes / 8) {
      memset(buffer, 0xee, SIZE);
      memset(want, 0xee, SIZE);
      memcpy(want + start, from + 5, bytes);
      tare_store_past_caches(buffer + start, from + 5, bytes);
      tare_end_past_caches();
      cr_assert_eq(memcmp(buffer, want, SIZE), 0, "%zu bytes at %zu", bytes, start);
      memset(want + start, 0, bytes);
      tare_zero_past_caches(buffer + start, bytes);
      tare_end_past_caches();
      cr_assert_eq(memcmp(buffer, want, SIZE), 0, "%zu zeros at %zu", bytes, start);
    }
}

/* On 128 cores caches may hold 512 MB and more, where they are several. */
Test(past_caches, what_exceeds_caches) {
  tare_find_last_cache();
  cr_assert_gt(atomic_load(&tare_last_cache), 0);
  cr_assert_not(tare_exceeds_caches(1 << 20, 1));
  say_batches(FIT);
  cr_assert_not(tare_exceeds_caches(1e12, 1));
  atomic_store(&tare_last_cache, 32 << 20);
#ifdef __SSE2__
  cr_assert(tare_exceeds_caches(43e6, 2));
#endif
  cr_assert_not(tare_exceeds_caches(33e6, 2));
  cr_assert_not(tare_exceeds_caches(500e6, 128));
}
