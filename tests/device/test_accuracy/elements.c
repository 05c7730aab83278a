/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of the sigmoid family and of GHM-R in units of the last place, over the whole range. */
#define _POSIX_C_SOURCE 200809L
#include "expected.h"

static const struct sweep plain_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0},
                                            {TARE_LOSS_SIGMOID_CE, 0.25, 0, 0},
                                            {TARE_LOSS_GHM_C, -1, 0, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, -1, 0, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, 0.25, 2, 0}};
static const struct sweep power_sweeps[] = {{TARE_LOSS_SIGMOID_FOCAL, -1, 0.5, 0}, {TARE_LOSS_SIGMOID_FOCAL, -1, 1, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, -1, 1.5, 0}, {TARE_LOSS_SIGMOID_FOCAL, -1, 2, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, -1, 3.7, 0}, {TARE_LOSS_SIGMOID_FOCAL, -1, 5, 0}};
/* Gammas so small that half an ulp for alpha shows beside 4*(1+gamma). */
static const struct sweep small_sweeps[] = {{TARE_LOSS_SIGMOID_FOCAL, 0.25, 0.01, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, 0.25, 0.05, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, 0.7, 0.09, 0},
                                            {TARE_LOSS_SIGMOID_FOCAL, -1, 0.05, 0}};
static const struct sweep poly_sweeps[] = {{TARE_LOSS_SIGMOID_POLY1, -1, 2, 1}, {TARE_LOSS_SIGMOID_POLY1, -1, 1.5, 3}};
static const struct sweep varifocal_sweeps[] = {
    {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 0, 0},   {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 0.5, 0},
    {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 1.5, 1}, {TARE_LOSS_SIGMOID_VARIFOCAL, 0.75, 2, 0},
    {TARE_LOSS_SIGMOID_VARIFOCAL, 0.75, 2, 1}, {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 3.7, 0},
    {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 3.7, 1}, {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 0.05, 1}};
static const struct sweep side_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0.1},
                                           {TARE_LOSS_SIGMOID_FOCAL, 0.25, 2, 0.01},
                                           {TARE_LOSS_SIGMOID_ASYMMETRIC, -1, 4, 0.05},
                                           {TARE_LOSS_SIGMOID_ASYMMETRIC, -1, 0.5, 0},
                                           {TARE_LOSS_SIGMOID_REDUCED_FOCAL, -1, 2, 0.5},
                                           {TARE_LOSS_SIGMOID_FOCAL_STAR, -1, 2, 1},
                                           {TARE_LOSS_SIGMOID_FOCAL_STAR, -1, 4, 0}};
static const struct sweep map_sweeps[] = {{TARE_LOSS_SIGMOID_HEATMAP_FOCAL, -1, 2, 4}};
static const struct sweep score_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0},
                                            {TARE_LOSS_SIGMOID_CE, 0.25, 0, 0},
                                            {TARE_LOSS_SIGMOID_VARIFOCAL, 0.75, 2, 0},
                                            {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 0.5, 1},
                                            {TARE_LOSS_SIGMOID_QUALITY_FOCAL, -1, 2, 0},
                                            {TARE_LOSS_SIGMOID_QUALITY_FOCAL, 0.25, 0.5, 0},
                                            {TARE_LOSS_SIGMOID_MATCHABILITY, -1, 1.5, 1},
                                            {TARE_LOSS_SIGMOID_IOU_AWARE, -1, 2, 0.25},
                                            {TARE_LOSS_SIGMOID_FOCAL, 0.25, 2, 0}};
static const struct sweep soft_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0},      {TARE_LOSS_SIGMOID_CE, 0.25, 0, 0},
                                           {TARE_LOSS_GHM_C, -1, 0, 0},           {TARE_LOSS_SIGMOID_FOCAL, -1, 0.5, 0},
                                           {TARE_LOSS_SIGMOID_FOCAL, 0.25, 2, 0}, {TARE_LOSS_SIGMOID_FOCAL, -1, 3.7, 0},
                                           {TARE_LOSS_SIGMOID_POLY1, -1, 2, 1}};
static const struct sweep ghm_r_sweeps[] = {{TARE_LOSS_GHM_R, -1, 0, 0.02}, {TARE_LOSS_GHM_R, -1, 0, 1}};

/* Positives by label, and labels with scores, are n rows of one class; the others are one row of n classes. */
static struct arrays run_chunk(const struct instruction_set *set, const struct sweep *sweep, const struct side *side,
                               const struct points *points) {
  static int32_t labels[CHUNK];
  static float targets[CHUNK];
  const bool tall = side->scored || (!side->dense && side->t == 1);
  const int64_t n = (int64_t)points->n;
  const size_t size = dtype_size(points->dtype), loss_size = points->dtype == TARE_DTYPE_F64 ? 8 : 4;
  for (size_t i = 0; i < points->n; ++i) labels[i] = tall ? 0 : -1;
  for (size_t i = 0; i < points->n; ++i) targets[i] = (float)side->t;
  struct arrays arrays = place_arrays(set->device, points->logits[is_mirrored(side)], points->n * size, labels,
                                      side->dense && !side->scored ? targets : NULL, points->n * sizeof *targets,
                                      (tall ? points->n : 1) * sizeof *labels, points->n * loss_size);
  if (side->scored) arrays.scores = buffer_of(set->device, targets, points->n * sizeof *targets);
  tare_level level;
  tare_batch batch;
  tare_level_init_rows(&level, tall ? n : 1, tall ? 1 : n);
  tare_batch_init(&batch);
  if (!side->alone) level.element_loss = arrays.loss->memory;
  batch.dtype = points->dtype;
  batch.classes = tall ? 1 : n;
  evaluate(set, sweep, &level, &batch, &arrays);
  return arrays;
}

struct sweeping {
  const struct sweep *sweeps;
  int sweep_count;
  const struct side *sides;
  int side_count;
};

enum { MOST_SWEEPS = 9 };

static void sweep_chunk(const struct sweep *sweep, const struct sweeping *job, const struct points *points,
                        const struct instruction_set *sets, int set_count, struct report reports[][QUANTITIES],
                        struct expected expected[QUANTITIES]) {
  for (int s = 0; s < job->side_count; ++s) {
    const struct side *side = &job->sides[s];
    bool known = is_mirrored(side) && s > 0 && sweep->alpha < 0 &&
                 !has_own_labels(sweep); /* the positive's numbers are the negative's too */
    struct origin origin = {.at = points->z, .sign = is_mirrored(side) ? -1 : 1, .detail = side->t};
    if (!known) expect_chunk(sweep, side, points, expected);
    for (int i = 0; i < set_count; ++i) {
      struct arrays arrays = run_chunk(&sets[i], sweep, side, points);
      compare_both(reports[i], (size_t[]){side->alone ? 0 : points->n, points->n}, points->dtype, arrays.loss->now,
                   arrays.gradient->now, expected, (struct origin[]){origin, origin});
      free_arrays(&arrays);
    }
  }
}

/* Which sweeps the device computes; false if none. */
static bool any_is_computed(const test_device *device, const struct sweeping *job, int32_t dtype, bool *computed) {
  bool any = false;
  for (int k = 0; k < job->sweep_count; ++k) {
    computed[k] = device_able(device, (int32_t)job->sweeps[k].kind, dtype) == device;
    any = any || computed[k];
  }
  return any;
}

/* The driver: every chunk of points through every sweep, side and instruction set of a device. */
static void sweep_elements(const test_device *device, const struct sweeping *job, int32_t dtype, bool sparse) {
  static struct points points;
  struct instruction_set sets[MOST_SETS];
  bool computed[MOST_SWEEPS];
  if (!any_is_computed(device, job, dtype, computed)) return;
  int set_count = open_sets(device, sets);
  struct report reports[MOST_SWEEPS][MOST_SETS][QUANTITIES] = {0};
  struct expected expected[QUANTITIES] = {allocate_expected(CHUNK), allocate_expected(CHUNK)};
  memset(&points, 0, sizeof points);
  points.dtype = dtype;
  points.sparse = sparse;
  while (next_points(&points))
    for (int k = 0; k < job->sweep_count; ++k)
      if (computed[k]) sweep_chunk(&job->sweeps[k], job, &points, sets, set_count, reports[k], expected);
  for (int k = 0; k < job->sweep_count; ++k)
    for (int i = 0; i < set_count && computed[k]; ++i)
      conclude(&job->sweeps[k], job->sides[0].dense, job->sides[0].alone, dtype, sets[i].name, reports[k][i]);
  for (int q = 0; q < QUANTITIES; ++q) free_expected(&expected[q]);
  close_sets(sets, set_count);
}

#define HARD(sweeps) \
  { (sweeps), COUNT(sweeps), hard_sides, COUNT(hard_sides) }
#define ALONE(sweeps) \
  { (sweeps), COUNT(sweeps), alone_sides, COUNT(alone_sides) }
#define SCORED(sweeps) \
  { (sweeps), COUNT(sweeps), score_sides, COUNT(score_sides) }
#define SOFT(sweeps) \
  { (sweeps), COUNT(sweeps), soft_sides, COUNT(soft_sides) }

static const struct sweeping plain_job = HARD(plain_sweeps), power_job = HARD(power_sweeps),
                             poly_job = HARD(poly_sweeps), small_job = HARD(small_sweeps);
static const struct sweeping plain_alone_job = ALONE(plain_sweeps), power_alone_job = ALONE(power_sweeps),
                             poly_alone_job = ALONE(poly_sweeps);
static const struct sweeping soft_job = SOFT(soft_sweeps), ghm_r_job = SOFT(ghm_r_sweeps);
static const struct sweeping varifocal_job = HARD(varifocal_sweeps), varifocal_alone_job = ALONE(varifocal_sweeps),
                             score_job = SCORED(score_sweeps), side_job = HARD(side_sweeps),
                             side_alone_job = ALONE(side_sweeps), map_job = SOFT(map_sweeps);

/* Single precision is most of the time, and tests run side by side. */
Test(accuracy, f32_cross_entropy) { FOR_EACH_DEVICE(device) sweep_elements(device, &plain_job, TARE_DTYPE_F32, false); }

Test(accuracy, f32_focal) { FOR_EACH_DEVICE(device) sweep_elements(device, &power_job, TARE_DTYPE_F32, false); }

Test(accuracy, f32_focal_of_small_gamma) {
  FOR_EACH_DEVICE(device) sweep_elements(device, &small_job, TARE_DTYPE_F32, true);
}

Test(accuracy, f32_poly1) { FOR_EACH_DEVICE(device) sweep_elements(device, &poly_job, TARE_DTYPE_F32, false); }

Test(accuracy, f32_varifocal) { FOR_EACH_DEVICE(device) sweep_elements(device, &varifocal_job, TARE_DTYPE_F32, true); }

Test(accuracy, scores) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d) sweep_elements(device, &score_job, dtypes[d], true);
  }
}

/* Losses whose negatives are not focal's. */
Test(accuracy, sides) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d) {
      sweep_elements(device, &side_job, dtypes[d], true);
      sweep_elements(device, &side_alone_job, dtypes[d], true);
      sweep_elements(device, &map_job, dtypes[d], true);
    }
  }
}

Test(accuracy, other_formats) {
  FOR_EACH_DEVICE(device) {
    for (int d = 1; d < COUNT(dtypes); ++d) {
      sweep_elements(device, &plain_job, dtypes[d], false);
      sweep_elements(device, &power_job, dtypes[d], false);
      sweep_elements(device, &poly_job, dtypes[d], false);
      sweep_elements(device, &varifocal_job, dtypes[d], true);
    }
  }
}

Test(accuracy, soft_targets) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d) sweep_elements(device, &soft_job, dtypes[d], true);
  }
}

Test(accuracy, gradient_alone) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d) {
      sweep_elements(device, &plain_alone_job, dtypes[d], true);
      sweep_elements(device, &power_alone_job, dtypes[d], true);
      sweep_elements(device, &poly_alone_job, dtypes[d], true);
      sweep_elements(device, &varifocal_alone_job, dtypes[d], true);
    }
  }
}

/* The loss of a batch of one number, from which all of it departs alike: of half types within 1.25e-6*(1+gamma), as
 * their elements may be computed with what their gradient needs, and of single precision as of one element. */
static void check_uniform_batch(const struct instruction_set *set, const struct sweep *sweep, int32_t dtype, double x) {
  enum { ROWS = 4, CLASSES = 16 };
  double logits[ROWS * CLASSES];
  static const int32_t labels[ROWS] = {-1, -1, -1, -1};
  for (size_t i = 0; i < ROWS * CLASSES; ++i) store_element(logits, i, dtype, x);
  const double z = -load_element(logits, 0, dtype);
  struct arrays arrays = place_arrays(set->device, logits, ROWS * CLASSES * dtype_size(dtype), labels, NULL, 0,
                                      sizeof labels, sizeof(double));
  tare_level level;
  tare_batch batch;
  tare_loss_spec loss;
  tare_output output;
  tare_level_init_rows(&level, ROWS, CLASSES);
  tare_batch_init(&batch);
  fill_loss(&loss, sweep, arrays.state);
  tare_output_init(&output);
  level.logits = arrays.logits->memory;
  level.labels = arrays.labels->memory;
  level.gradient = arrays.gradient->memory;
  batch.dtype = dtype;
  batch.classes = CLASSES;
  batch.levels = &level;
  batch.level_count = 1;
  output.loss = arrays.loss->memory;
  output.loss_dtype = TARE_DTYPE_F64;
  cr_assert_eq(tare_evaluate(set->context, &loss, &batch, &output, NULL), TARE_STATUS_OK, "%s",
               tare_error_text(set->context));
  buffer_download(arrays.loss, "loss");
  const double got = *(const double *)arrays.loss->now;
  const double want = ROWS * CLASSES * hard_pair(sweep, &alone_sides[0], z, oracle_point(z)).value;
  const double allowed = (dtype == TARE_DTYPE_F32 ? 5e-7 : 1.25e-6) * (1 + sweep->gamma);
  cr_expect(fabs(got - want) <= allowed * want, "%s %s %s: x = %g: got %.17g, want %.17g, off by %.3g",
            sweep_text(sweep, false, true), dtype_name(dtype), set->name, x, got, want, got / want - 1);
  free_arrays(&arrays);
}

Test(accuracy, loss_of_a_uniform_batch) {
  static const int32_t narrow[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16};
  FOR_EACH_DEVICE(device) {
    struct instruction_set sets[MOST_SETS];
    const int count = open_sets(device, sets);
    for (int d = 0; d < COUNT(narrow); ++d)
      for (int k = 0; k < COUNT(power_sweeps); ++k)
        for (int i = 0; i < test_size(400, 100); ++i)
          check_uniform_batch(&sets[0], &power_sweeps[k], narrow[d], -12 + i * 24.0 / test_size(400, 100));
    close_sets(sets, count);
  }
}

Test(accuracy, ghm_r) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d) sweep_elements(device, &ghm_r_job, dtypes[d], true);
  }
}
