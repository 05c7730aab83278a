/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of whole tiles, as a GPU takes them: keys on both sides of every threshold, and numbers that are none, in rows
 * that count and that do not; and densities that leave nothing of an infinite loss. */
#include "ghm.h"

/* ---- Counts ------------------------------------------------------------------------------------------------------ */

/* The key of a threshold, up to two floats beside it, or what no table of thresholds has. */
static double draw_key(random_source *source, int bins) {
  static const double others[] = {(double)INFINITY, -(double)INFINITY, (double)NAN, 0.0,  -0.0, 1e-40,
                                  -1e-40,           -3.4e38,           3.4e38,      -20.0};
  enum { OTHERS = sizeof others / sizeof *others };
  const int64_t k = random_below(source, bins + 2);
  if (k < 1 || k >= bins) return others[random_below(source, OTHERS)];
  const double edge = oracle_ghm_edge((int)k, bins, 0);
  float x = (float)log(edge / (1 - edge));
  for (int64_t steps = random_below(source, 3); steps > 0; steps--) x = nextafterf(x, k % 2 ? INFINITY : -INFINITY);
  return (double)x;
}

typedef struct way {
  int64_t classes;
  bool channels_first;
  int64_t height, width, phase;
  double ignored;
} way;

static void check_tiles(const test_device *device, int32_t dtype, int32_t bins, way w) {
  const level_shape levels[] = {{w.height, w.width, 1}, {5, 3, 2}};
  problem *p = problem_new_levels(TARE_LOSS_GHM_C, dtype, 2, w.classes, 2, levels);
  random_source source = random_from(77);
  p->loss.ghm.bins = bins;
  problem_add_ghm_state(p);
  problem_draw_labels(p, 0.3, w.ignored);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double key = draw_key(&source, bins);
    p->logits[i] = round_to_dtype(dtype, p->labels[i / p->classes] == i % p->classes ? -key : key);
  }
  for (int a = ARRAY_LOGITS; a <= ARRAY_GRADIENT; a++) {
    p->place[a].channels_first = w.channels_first;
    p->place[a].phase = w.phase;
  }
  p->want = WANT_LOSS;
  outcome_free(problem_run(p, device));
  outcome_free(problem_expect(p));
  check_state(p, "keys at every threshold");
  problem_free(p);
}

Test(ghm, counts_whole_tiles) {
  static const int32_t types[] = {TARE_DTYPE_F32, TARE_DTYPE_BF16, TARE_DTYPE_F16}, bins[] = {1, 2, 30, 100, 190, 300};
  static const way ways[] = {
      {80, false, 8, 31, 0, 0},    {91, false, 8, 30, 0, 0.02},  {20, false, 40, 30, 0, 0},
      {3, false, 40, 33, 0, 0.7},  {80, false, 6, 9, 1, 0.3},    {7, false, 20, 20, 3, 0},
      {80, true, 8, 32, 0, 0},     {21, true, 16, 32, 0, 0.02},  {21, true, 7, 37, 0, 0},
      {80, true, 5, 9, 0, 0.7},    {16, false, 16, 16, 0, 0.98}, {5, true, 16, 16, 0, 0.98},
      {300, false, 3, 11, 0, 0.5}, {1, false, 40, 40, 0, 0.5},
  };
  enum { WAYS = sizeof ways / sizeof *ways, BINS = sizeof bins / sizeof *bins };
  FOR_EACH_DEVICE(device) {
    for (int t = 0; t < 3; t++) {
      for (int i = 0; i < WAYS; i++) check_tiles(device, types[t], bins[(i + t) % BINS], ways[i]);
      for (int b = 0; b < BINS; b++) check_tiles(device, types[t], bins[b], ways[b % 2 ? 1 : 0]);
    }
  }
}

/* ---- 1/GD of 0 --------------------------------------------------------------------------------------------------- */

/* With a stored density of 0 in the last bin, infinite logits add nothing, and NaN stays NaN. */
static void check_infinite_losses(const test_device *device, int32_t dtype, int64_t classes, int32_t bins,
                                  bool is_nan) {
  problem *p = ghm_problem(TARE_LOSS_GHM_C, dtype, 40, classes, bins);
  double of_bin = 0.25;
  p->loss.ghm.use_stored_density = 1;
  for (int k = 0; k < bins; k++) {
    if (k == bins - 1) of_bin = 0;
    memcpy(&p->ghm_state[2 + 2 * bins + k], &of_bin, sizeof of_bin);
  }
  for (int64_t i = 0; i < p->rows * classes; i++) p->logits[i] = i % 5 == 3 ? (double)INFINITY : -9;
  for (int64_t i = 0; i < p->rows; i++) p->labels[i] = -1;
  if (is_nan) p->logits[17] = (double)NAN;
  p->want = WANT_LOSS | WANT_GRADIENT; /* row losses go another way */
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  cr_assert_eq((bool)isnan(o->loss), is_nan, "%s: the loss is %g", problem_text(p), o->loss);
  cr_assert_eq((bool)isinf(o->loss), false, "%s: the loss is %g", problem_text(p), o->loss);
  for (int64_t i = 0; i < p->rows * classes; i++) {
    if (is_nan && i == 17)
      cr_assert(isnan(o->gradient[i]), "%s", problem_text(p));
    else if (i % 5 == 3)
      cr_assert_eq(o->gradient[i], 0, "%s: %g", problem_text(p), o->gradient[i]);
    else
      cr_assert_gt(o->gradient[i], 0, "%s", problem_text(p));
  }
  outcome_free(o);
  problem_free(p);
}

Test(ghm, an_infinite_loss_over_an_infinite_density) {
  static const int64_t classes[] = {80, 91, 3};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (int c = 0; c < 3; c++) {
        check_infinite_losses(device, dtypes[d], classes[c], 30, false);
        check_infinite_losses(device, dtypes[d], classes[c], 1024, true);
      }
    }
  }
}
