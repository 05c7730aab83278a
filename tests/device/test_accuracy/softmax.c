/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of the softmax losses in units of the last place. */
#define _POSIX_C_SOURCE 200809L
#include "accuracy.h"

/* ---- Softmax --------------------------------------------------------------------------------------------------- */

static const struct sweep softmax_sweeps[] = {
    {TARE_LOSS_SOFTMAX_CE, -1, 0, 0},      {TARE_LOSS_SOFTMAX_FOCAL, -1, 0.5, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 1, 0},   {TARE_LOSS_SOFTMAX_FOCAL, -1, 1.5, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, 0.25, 2, 0}, {TARE_LOSS_SOFTMAX_FOCAL, -1, 3.7, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 5, 0},   {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, 0, 0},
    {TARE_LOSS_SOFTMAX_LDAM, -1, 0, 0}};
static const struct sweep smoothed_sweeps[] = {
    {TARE_LOSS_SOFTMAX_CE, -1, 0, 0.1},      {TARE_LOSS_SOFTMAX_CE, -1, 0, 0.9},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 0.5, 0.1}, {TARE_LOSS_SOFTMAX_FOCAL, 0.25, 2, 0.1},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 2, -0.1},  {TARE_LOSS_SOFTMAX_FOCAL, -1, 3.7, -0.5}};
static const struct sweep z_loss_sweeps[] = {{TARE_LOSS_SOFTMAX_CE, -1, 1e-4, 0},
                                             {TARE_LOSS_SOFTMAX_CE, -1, 0.1, 0.1},
                                             {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, 0.01, 0}};
static const struct sweep soft_softmax_sweeps[] = {{TARE_LOSS_SOFTMAX_CE, -1, 0, 0},
                                                   {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, 0, 0}};
static const int64_t widths[] = {2, 3, 17, 81, 1203};

/* Rows of logits with their labels or smoothed targets, and a whole row's room for every output. */
struct softmax_batch {
  int32_t dtype;
  int64_t rows, classes;
  double *logits, *stored, *targets, *dx, *row_at;
  double *offset;  /* [classes], exact floats, of logit adjustment; NULL: none */
  double *margins; /* the same, of LDAM */
  double scale;
  float *stored_targets;
  int32_t *labels;
  struct expected expected[QUANTITIES];
};

static double *numbers(int64_t count) {
  double *array = calloc((size_t)count, sizeof *array);
  cr_assert(array);
  return array;
}

/* Spreads from nearly equal to 300, some rows confident of their label. */
static void draw_row(struct softmax_batch *batch, int64_t row, random_source *random) {
  static const double spreads[] = {0.01, 1, 4, 20, 60, 300};
  double spread = spreads[random_below(random, COUNT(spreads))];
  int64_t y = random_below(random, batch->classes);
  batch->labels[row] = (int32_t)y;
  for (int64_t c = 0; c < batch->classes; ++c) {
    int64_t at = row * batch->classes + c;
    double x = fmax(-400, fmin(400, spread * random_normal(random))) / batch->scale;
    if (c == y && random_uniform(random) < 0.3) x += 20 * random_uniform(random) / batch->scale;
    store_element(batch->stored, (size_t)at, batch->dtype, x);
    batch->logits[at] = load_element(batch->stored, (size_t)at, batch->dtype);
    batch->stored_targets[at] = (float)(0.1 / (double)batch->classes + (c == y ? 0.9 : 0));
    batch->targets[at] = batch->stored_targets[at];
  }
  batch->row_at[row] = batch->logits[row * batch->classes + y];
}

/* Priors of a long tail, and now and then one far from the others. */
static double *draw_offsets(int64_t classes) {
  random_source random = random_from((uint64_t)(20 + classes));
  double *offset = numbers(classes);
  for (int64_t c = 0; c < classes; ++c)
    offset[c] = (float)(random_uniform(&random) < 0.1 ? 30 * random_normal(&random) : -12 * random_uniform(&random));
  return offset;
}

/* Of LDAM, for logits that are no cosines: some are larger than them. */
static double *draw_margins(int64_t classes) {
  random_source random = random_from((uint64_t)(30 + classes));
  double *margins = numbers(classes);
  for (int64_t c = 0; c < classes; ++c)
    margins[c] = (float)((random_below(&random, 4) ? 0.5 : 30) * random_uniform(&random));
  return margins;
}

static struct softmax_batch draw_softmax(const struct sweep *sweep, int32_t dtype, int64_t classes) {
  int64_t rows = test_size(20000, 4000) / classes + 30, elements = rows * classes;
  struct softmax_batch batch = {.dtype = dtype,
                                .rows = rows,
                                .classes = classes,
                                .scale = 1,
                                .logits = numbers(elements),
                                .stored = numbers(elements),
                                .targets = numbers(elements),
                                .dx = numbers(classes),
                                .row_at = numbers(rows),
                                .stored_targets = calloc((size_t)elements, sizeof(float)),
                                .labels = calloc((size_t)rows, sizeof(int32_t)),
                                .expected = {allocate_expected((size_t)rows), allocate_expected((size_t)elements)}};
  cr_assert(batch.stored_targets && batch.labels);
  if (sweep->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) batch.offset = draw_offsets(classes);
  if (sweep->kind == TARE_LOSS_SOFTMAX_LDAM) batch.margins = draw_margins(classes), batch.scale = 30;
  random_source random = random_from((uint64_t)(10 + classes));
  for (int64_t row = 0; row < rows; ++row) draw_row(&batch, row, &random);
  return batch;
}

static void free_softmax(struct softmax_batch *batch) {
  double *arrays[] = {batch->logits, batch->stored, batch->targets, batch->dx,
                      batch->row_at, batch->offset, batch->margins};
  for (int i = 0; i < COUNT(arrays); ++i) free(arrays[i]);
  free(batch->stored_targets);
  free(batch->labels);
  for (int q = 0; q < QUANTITIES; ++q) free_expected(&batch->expected[q]);
}

/* max |z_j - m|, m the largest logit off the label: what the differences of logits add to the bound, in ulp. A sum of
 * logit and offset adds twice its own size. LDAM's
 * differences are multiplied, which rounds again. */
static double reach_of(const struct softmax_batch *batch, int64_t row) {
  const double *x = batch->logits + row * batch->classes, *offset = batch->offset;
  double m = -INFINITY, reach = 0, size = 0;
  for (int64_t c = 0; c < batch->classes; ++c)
    if (c != batch->labels[row]) m = fmax(m, x[c] + (offset ? offset[c] : 0));
  for (int64_t c = 0; c < batch->classes; ++c) {
    const double z = x[c] + (offset ? offset[c] : 0);
    reach = fmax(reach, fabs(z - m));
    if (offset) size = fmax(size, fabs(z));
  }
  return batch->margins ? 2 * batch->scale * reach : reach + 2 * size;
}

/* q^gamma of the label, or of the smoothed target: what the targets in the gradient are multiplied by. */
static double modulator_of(const struct sweep *sweep, const double *x, int64_t classes, int64_t y) {
  double m = -INFINITY, sum = 0;
  for (int64_t k = 0; k < classes; ++k) m = fmax(m, k == y ? m : x[k]);
  for (int64_t k = 0; k < classes; ++k) sum += k == y ? 0 : exp(x[k] - m);
  if (z_loss_of(sweep) > 0) return 1;
  const double q = oracle_point(x[y] - m - log(sum)).q, s = fabs(sweep->epsilon), share = s / (double)classes;
  return pow(sweep->epsilon < 0 ? (1 - s) * q + s - share : q, sweep->gamma);
}

/* What is subtracted in an element's gradient. */
static double taken_of(const struct sweep *sweep, bool soft, const struct softmax_batch *batch, int64_t row,
                       int64_t cls) {
  const double *x = batch->logits + row * batch->classes;
  if (soft) return batch->targets[row * batch->classes + cls];
  if (!is_smoothed_row(sweep)) return 0;
  const double modulator = modulator_of(sweep, x, batch->classes, batch->labels[row]);
  const double s = fabs(sweep->epsilon), share = s / (double)batch->classes;
  return modulator * (cls == batch->labels[row] ? s - share : share);
}

/* LSE of a row, and the size of what is added for it: the largest |z| and log C. */
static double lse_of(const struct softmax_batch *batch, int64_t row, double *size) {
  const double *x = batch->logits + row * batch->classes;
  double m = -INFINITY, sum = 0;
  *size = 0;
  for (int pass = 0; pass < 2; ++pass)
    for (int64_t c = 0; c < batch->classes; ++c) {
      const double z = x[c] + (batch->offset ? batch->offset[c] : 0);
      if (pass == 0) m = fmax(m, z), *size = fmax(*size, fabs(z));
      if (pass == 1) sum += exp(z - m);
    }
  *size += log((double)batch->classes);
  return m + log(sum);
}

static double plain_row(const struct sweep *sweep, bool soft, const struct softmax_batch *batch, int64_t row) {
  const double *x = batch->logits + row * batch->classes, *t = batch->targets + row * batch->classes;
  const double gamma = z_loss_of(sweep) > 0 ? 0 : sweep->gamma;
  const struct oracle_smoothing by = {fabs(sweep->epsilon), gamma, sweep->epsilon < 0};
  if (soft) return oracle_adjusted_soft_softmax_row(batch->classes, x, batch->offset, t, batch->dx);
  if (is_smoothed_row(sweep)) return oracle_smoothed_softmax_row(batch->classes, x, batch->labels[row], by, batch->dx);
  if (batch->margins)
    return oracle_ldam_row(batch->classes, x, batch->margins, batch->scale, batch->labels[row], batch->dx);
  return oracle_adjusted_softmax_row(batch->classes, x, batch->offset, batch->labels[row], gamma, batch->dx);
}

static double oracle_row(const struct sweep *sweep, bool soft, const struct softmax_batch *batch, int64_t row) {
  const double loss = plain_row(sweep, soft, batch, row), *x = batch->logits + row * batch->classes;
  return oracle_add_z_loss(batch->classes, x, batch->offset, z_loss_of(sweep), loss, batch->dx);
}

/* Units are widened so that the bound plus the row's reach, in true ulp, comes out as the bound. */
static void expect_softmax(const struct sweep *sweep, bool soft, struct softmax_batch *batch) {
  struct written loss = written_as(sweep, soft, batch->dtype, LOSS);
  struct written gradient = written_as(sweep, soft, batch->dtype, GRADIENT);
  double alpha = sweep->alpha < 0 ? 1 : sweep->alpha, factor = 2 * z_loss_of(sweep);
  for (int64_t row = 0; row < batch->rows; ++row) {
    double want = alpha * oracle_row(sweep, soft, batch, row);
    double reach = reach_of(batch, row), a, lse = lse_of(batch, row, &a);
    double widening = gradient.bound > 1 ? gradient.bound / (gradient.bound + reach) : 1;
    batch->expected[LOSS].want[row] = want;
    batch->expected[LOSS].per_unit[row] =
        per_unit(&loss, want, want + factor * a * a) * loss.bound / (loss.bound + reach);
    for (int64_t c = 0; c < batch->classes; ++c) {
      double dx = alpha * batch->dx[c], taken = alpha * taken_of(sweep, soft, batch, row, c);
      double z = batch->logits[row * batch->classes + c] + (batch->offset ? batch->offset[c] : 0);
      double size = fabs(dx) + 2 * taken + 2 * factor * a * exp(z - lse); /* what cancels truly */
      batch->expected[GRADIENT].want[row * batch->classes + c] = dx;
      batch->expected[GRADIENT].per_unit[row * batch->classes + c] = per_unit(&gradient, dx, size) * widening;
    }
  }
}

static struct arrays run_softmax(const struct instruction_set *set, const struct sweep *sweep, bool soft,
                                 const struct softmax_batch *rows) {
  const size_t count = (size_t)rows->rows, elements = (size_t)(rows->rows * rows->classes);
  struct arrays arrays = place_arrays(set->device, rows->stored, elements * dtype_size(rows->dtype), rows->labels,
                                      soft ? rows->stored_targets : NULL, elements * sizeof(float),
                                      count * sizeof(int32_t), count * (rows->dtype == TARE_DTYPE_F64 ? 8 : 4));
  float offset[1203];
  const double *of_class = rows->margins != NULL ? rows->margins : rows->offset;
  for (int64_t c = 0; of_class != NULL && c < rows->classes; ++c) offset[c] = (float)of_class[c];
  if (of_class != NULL) arrays.offset = buffer_of(set->device, offset, (size_t)rows->classes * sizeof *offset);
  tare_level level;
  tare_batch batch;
  tare_level_init_rows(&level, rows->rows, rows->classes);
  tare_batch_init(&batch);
  level.row_loss = arrays.loss->memory;
  batch.dtype = rows->dtype;
  batch.classes = rows->classes;
  evaluate(set, sweep, &level, &batch, &arrays);
  return arrays;
}

static void sweep_width(const struct sweep *sweep, bool soft, int32_t dtype, int64_t classes,
                        const struct instruction_set *sets, int set_count, struct report reports[][QUANTITIES]) {
  struct softmax_batch batch = draw_softmax(sweep, dtype, classes);
  const size_t counts[QUANTITIES] = {(size_t)batch.rows, (size_t)(batch.rows * classes)};
  const struct origin origins[QUANTITIES] = {{batch.row_at, 1, (double)classes}, {batch.logits, 1, (double)classes}};
  expect_softmax(sweep, soft, &batch);
  for (int i = 0; i < set_count; ++i) {
    struct arrays arrays = run_softmax(&sets[i], sweep, soft, &batch);
    compare_both(reports[i], counts, dtype, arrays.loss->now, arrays.gradient->now, batch.expected, origins);
    free_arrays(&arrays);
  }
  free_softmax(&batch);
}

static void sweep_softmax(const test_device *device, const struct sweep *sweep, bool soft, int32_t dtype) {
  struct instruction_set sets[MOST_SETS];
  if (device_able(device, (int32_t)sweep->kind, dtype) != device) return;
  int set_count = open_sets(device, sets);
  struct report reports[MOST_SETS][QUANTITIES] = {0};
  for (int w = 0; w < COUNT(widths); ++w) sweep_width(sweep, soft, dtype, widths[w], sets, set_count, reports);
  for (int i = 0; i < set_count; ++i) conclude(sweep, soft, false, dtype, sets[i].name, reports[i]);
  close_sets(sets, set_count);
}

Test(accuracy, softmax) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d)
      for (int k = 0; k < COUNT(softmax_sweeps); ++k) sweep_softmax(device, &softmax_sweeps[k], false, dtypes[d]);
  }
}

Test(accuracy, smoothed_softmax) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d)
      for (int k = 0; k < COUNT(smoothed_sweeps); ++k) sweep_softmax(device, &smoothed_sweeps[k], false, dtypes[d]);
  }
}

/* Each type of logits once. */
Test(accuracy, z_loss) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d)
      sweep_softmax(device, &z_loss_sweeps[d % COUNT(z_loss_sweeps)], false, dtypes[d]);
  }
}

Test(accuracy, soft_softmax) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d)
      for (int k = 0; k < COUNT(soft_softmax_sweeps); ++k)
        sweep_softmax(device, &soft_softmax_sweeps[k], true, dtypes[d]);
  }
}
