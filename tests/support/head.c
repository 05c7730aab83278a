/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a fused head, laying it out in device memory, and its gradients from those by the logits, in double.
 */
#include "head.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"
#include "random.h"

/* ---- Numbers --------------------------------------------------------------------------------------------------- */

static double *multiples(random_source *source, int64_t count, int64_t most, double unit, double centre) {
  double *values = calloc((size_t)count + 1, sizeof *values);
  for (int64_t i = 0; i < count; i++) values[i] = centre + (double)(random_below(source, 2 * most + 1) - most) * unit;
  return values;
}

void head_multiply(problem *p) {
  const struct head *h = p->head;
  for (int64_t i = 0; i < p->rows; i++) {
    for (int64_t c = 0; c < p->classes; c++) {
      double sum = h->bias != NULL ? h->bias[c] : 0;
      for (int64_t d = 0; d < h->dimensions; d++) {
        sum += h->features[i * h->dimensions + d] * h->weights[c * h->dimensions + d];
      }
      p->logits[i * p->classes + c] = sum;
    }
  }
}

/* GHM-R: differences of every size around mu. */
static void draw_targets_around_logits(problem *p, random_source *source) {
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double difference = random_normal(source) * pow(10, -3 + 4 * random_uniform(source));
    p->targets[i] = round_to_dtype(p->target_dtype, p->logits[i] + difference);
  }
}

problem *head_problem(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, int64_t dimensions) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, rows, classes);
  struct head *h = calloc(1, sizeof *h);
  random_source source = random_from(7000 + (uint64_t)(rows + 31 * classes + 101 * dimensions));
  const int64_t most = (int64_t)(256 / sqrt((double)dimensions));
  *h = (struct head){.dimensions = dimensions,
                     .dtype = dtype,
                     .outputs = HEAD_ALL,
                     .features = multiples(&source, rows * dimensions, 16, 0.125, 0),
                     .weights = multiples(&source, classes * dimensions, most, 1.0 / 64, 0),
                     .bias = multiples(&source, classes, 16, 0.125, is_softmax(kind) ? 0 : -2)};
  p->head = h;
  head_multiply(p);
  if (kind == TARE_LOSS_GHM_R) draw_targets_around_logits(p, &source);
  return p;
}

void head_free(struct head *h) {
  if (h == NULL) return;
  free(h->features);
  free(h->weights);
  free(h->bias);
  free(h);
}

/* What a gradient that is added to held before. */
static double previous(int64_t index) { return (double)(index % 13 - 6) / 4; }

/* ---- Device memory ---------------------------------------------------------------------------------------------- */

/** Rows of `columns` numbers, `padding` places after each; `values` NULL leaves the buffer as it is. */
static buffer *place_rows(const test_device *device, int32_t dtype, const double *values, int64_t rows, int64_t columns,
                          int64_t padding) {
  const int64_t stride = columns + padding;
  buffer *b = buffer_new(device, (size_t)(rows * stride) * dtype_size(dtype), dtype_size(dtype));
  for (int64_t i = 0; values != NULL && i < rows * columns; i++) {
    store_element(b->before, (size_t)(i / columns * stride + i % columns), dtype, values[i]);
  }
  buffer_upload(b);
  return b;
}

static buffer *place_sums(const test_device *device, bool wanted, bool accumulate, int64_t count) {
  if (!wanted) return NULL;
  buffer *b = buffer_new(device, (size_t)count * sizeof(float), sizeof(float));
  for (int64_t i = 0; accumulate && i < count; i++) store_element(b->before, (size_t)i, TARE_DTYPE_F32, previous(i));
  buffer_upload(b);
  return b;
}

void head_open(head_run *run, const problem *p, const test_device *device) {
  const struct head *h = p->head;
  const int64_t d = h->dimensions;
  *run = (head_run){.p = p};
  run->features = place_rows(device, h->dtype, h->features, p->rows, d, h->padding);
  run->weights = place_rows(device, h->dtype, h->weights, p->classes, d, 0);
  if (h->bias != NULL) run->bias = place_rows(device, h->dtype, h->bias, 1, p->classes, 0);
  if (h->outputs & HEAD_FEATURES && !h->in_place) {
    run->features_gradient = place_rows(device, h->dtype, NULL, p->rows, d, h->gradient_padding);
  }
  run->weights_gradient = place_sums(device, h->outputs & HEAD_WEIGHTS, h->accumulate, p->classes * d);
  run->bias_gradient = place_sums(device, h->outputs & HEAD_BIAS, h->accumulate, p->classes);

  tare_linear *linear = &run->linear;
  tare_linear_init(linear, d);
  linear->dtype = h->dtype;
  linear->accumulate = h->accumulate;
  linear->features = buffer_memory(run->features);
  linear->features_stride = d + h->padding;
  linear->weights = buffer_memory(run->weights);
  linear->bias = buffer_memory(run->bias);
  if (h->outputs & HEAD_FEATURES) {
    linear->features_gradient = h->in_place ? run->features->memory : run->features_gradient->memory;
    linear->features_gradient_stride = d + (h->in_place ? h->padding : h->gradient_padding);
  }
  linear->weights_gradient = buffer_memory(run->weights_gradient);
  linear->bias_gradient = buffer_memory(run->bias_gradient);
}

static head_gradient read_rows(buffer *b, const char *what, int32_t dtype, int64_t rows, int64_t columns,
                               int64_t padding) {
  head_gradient g = {.count = rows * columns};
  const int64_t stride = columns + padding;
  g.value = calloc((size_t)g.count + 1, sizeof *g.value);
  buffer_download(b, what);
  for (int64_t i = 0; i < rows * stride; i++) {
    const size_t size = dtype_size(dtype), at = (size_t)i * size;
    if (i % stride < columns) {
      g.value[i / stride * columns + i % stride] = load_element(b->now, (size_t)i, dtype);
    } else if (memcmp(b->now + at, b->before + at, size) != 0) {
      cr_assert_fail("%s: place %lld between the rows was overwritten", what, (long long)i);
    }
  }
  return g;
}

struct head_outcome *head_read(head_run *run) {
  const problem *p = run->p;
  const struct head *h = p->head;
  struct head_outcome *o = calloc(1, sizeof *o);
  buffer_expect_unchanged(run->weights, "weights");
  if (run->bias != NULL) buffer_expect_unchanged(run->bias, "bias");
  if (!h->in_place || !(h->outputs & HEAD_FEATURES)) buffer_expect_unchanged(run->features, "features");
  if (h->outputs & HEAD_FEATURES) {
    o->features = read_rows(h->in_place ? run->features : run->features_gradient, "features_gradient", h->dtype,
                            p->rows, h->dimensions, h->in_place ? h->padding : h->gradient_padding);
  }
  if (h->outputs & HEAD_WEIGHTS) {
    o->weights = read_rows(run->weights_gradient, "weights_gradient", TARE_DTYPE_F32, p->classes, h->dimensions, 0);
  }
  if (h->outputs & HEAD_BIAS)
    o->bias = read_rows(run->bias_gradient, "bias_gradient", TARE_DTYPE_F32, 1, p->classes, 0);
  return o;
}

static void each_buffer(head_run *run, void (*act)(buffer *b)) {
  buffer *const all[] = {run->features,          run->weights,          run->bias,
                         run->features_gradient, run->weights_gradient, run->bias_gradient};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    if (all[i] != NULL) act(all[i]);
  }
}

static void expect_unchanged(buffer *b) { buffer_expect_unchanged(b, "an array of a fused head's failed call"); }

void head_expect_nothing_written(head_run *run) { each_buffer(run, expect_unchanged); }

void head_close(head_run *run) { each_buffer(run, buffer_free); }

/* ---- The oracle ------------------------------------------------------------------------------------------------- */

static head_gradient sums(int64_t count) {
  return (head_gradient){.value = calloc((size_t)count + 1, sizeof(double)),
                         .size = calloc((size_t)count + 1, sizeof(double)),
                         .count = count};
}

static void add(head_gradient *g, int64_t at, double term) {
  g->value[at] += term;
  g->size[at] += fabs(term);
}

static double largest_of(const double *values, int64_t count) {
  double largest = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, isfinite(values[i]) ? fabs(values[i]) : 0);
  return largest;
}

struct head_outcome *head_expect(const problem *p, const double *gradient) {
  const struct head *h = p->head;
  const int64_t dimensions = h->dimensions;
  struct head_outcome *o = calloc(1, sizeof *o);
  if (h->outputs & HEAD_FEATURES) o->features = sums(p->rows * dimensions);
  if (h->outputs & HEAD_WEIGHTS) o->weights = sums(p->classes * dimensions);
  if (h->outputs & HEAD_BIAS) o->bias = sums(p->classes);
  for (int64_t i = 0; h->accumulate && i < o->weights.count; i++) add(&o->weights, i, previous(i));
  for (int64_t i = 0; h->accumulate && i < o->bias.count; i++) add(&o->bias, i, previous(i));
  for (int64_t i = 0; i < p->rows; i++) {
    for (int64_t c = 0; c < p->classes; c++) {
      const double slope = gradient[i * p->classes + c];
      if (h->outputs & HEAD_BIAS) add(&o->bias, c, slope);
      for (int64_t d = 0; d < dimensions; d++) {
        if (h->outputs & HEAD_FEATURES) add(&o->features, i * dimensions + d, slope * h->weights[c * dimensions + d]);
        if (h->outputs & HEAD_WEIGHTS) {
          add(&o->weights, c * dimensions + d, slope * h->features[i * dimensions + d]);
        }
      }
    }
  }
  const double largest = largest_of(gradient, p->rows * p->classes);
  o->features.largest = largest * largest_of(h->weights, p->classes * dimensions);
  o->weights.largest = largest * largest_of(h->features, p->rows * dimensions);
  return o;
}

void head_outcome_free(struct head_outcome *o) {
  if (o == NULL) return;
  head_gradient *const all[] = {&o->features, &o->weights, &o->bias};
  for (int i = 0; i < 3; i++) {
    free(all[i]->value);
    free(all[i]->size);
  }
  free(o);
}

/* ---- Comparison -------------------------------------------------------------------------------------------------- */

/** Both in units of the sum of the terms' magnitudes, where the errors of a sum are alike; `rounded` is the type of the
 *  written sum, and `terms` their number. `lost` is the part of the largest term that a term may be off by. */
static void check_sums(const char *file, int line, const problem *p, const char *name, const head_gradient *got,
                       const head_gradient *want, int32_t rounded, int64_t terms, double of_gradient, double lost) {
  if (want->count == 0) return;
  char what[640];
  const bool is_half = rounded == TARE_DTYPE_F16 || rounded == TARE_DTYPE_BF16;
  const double allowed =
      of_gradient + (8 + 2 * sqrt((double)terms)) * 0x1p-24 + (is_half ? dtype_roundoff(rounded) : 0);
  const double floor =
      ((1e-34 + p->slack + lost * want->largest) * (double)terms + (is_half ? dtype_smallest(rounded) : 0)) / allowed;
  double *ours = calloc((size_t)want->count, sizeof *ours), *theirs = calloc((size_t)want->count, sizeof *theirs);
  for (int64_t i = 0; i < want->count; i++) {
    const double unit = want->size[i] + floor > 0 ? want->size[i] + floor : 1; /* a sum of nothing is 0 */
    ours[i] = got->value[i] / unit;
    theirs[i] = want->value[i] / unit;
  }
  snprintf(what, sizeof what, "%s of %s", name, problem_text(p));
  (p->drawn ? check_close_or_small : check_close_or_zero)(file, line, what, ours, theirs, (size_t)want->count,
                                                          (tolerance){.absolute = allowed});
  free(ours);
  free(theirs);
}

void head_check(const char *file, int line, const problem *p, const outcome *got, const outcome *want) {
  const struct head *h = p->head;
  const struct head_outcome *g = got->head, *w = want->head;
  const double relative = gradient_tolerance(p).relative;
  const bool narrows = got->device->kind == TARE_DEVICE_CUDA && h->dtype != TARE_DTYPE_F32; /* for tensor cores */
  const double factor = relative + (narrows ? dtype_roundoff(h->dtype) : 0);
  const double lost = narrows && h->dtype == TARE_DTYPE_F16 ? 0x1p-39 : 0; /* f16 has no smaller part of 2^14 */
  check_sums(file, line, p, "features_gradient", &g->features, &w->features, h->dtype, p->classes, factor, lost);
  check_sums(file, line, p, "weights_gradient", &g->weights, &w->weights, TARE_DTYPE_F32, p->rows, factor, lost);
  check_sums(file, line, p, "bias_gradient", &g->bias, &w->bias, TARE_DTYPE_F32, p->rows, relative, 0);
}

void head_check_same(const char *file, int line, const problem *p, const outcome *got, const outcome *want) {
  const head_gradient *const a[] = {&got->head->features, &got->head->weights, &got->head->bias};
  const head_gradient *const b[] = {&want->head->features, &want->head->weights, &want->head->bias};
  for (int i = 0; i < 3; i++) {
    if (a[i]->count > 0) check_same(file, line, problem_text(p), a[i]->value, b[i]->value, (size_t)a[i]->count);
  }
}

/* ---- A BLAS ------------------------------------------------------------------------------------------------------ */

void head_require_blas(const test_device *device) {
  problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2, 3, 4);
  outcome *o = problem_run(p, device);
  const bool missing = o->status == TARE_STATUS_NO_BLAS;
  static char text[1024];
  snprintf(text, sizeof text, "%s", o->text);
  outcome_free(o);
  problem_free(p);
  if (missing) cr_skip_test("no BLAS on %s: %s", device->name, text);
}
