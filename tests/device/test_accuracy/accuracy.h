/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How exact the library is: dense sweeps of every loss and gradient against the oracle, for every number format and
 * every instruction set of this machine, and on a GPU where TARE_TEST_DEVICES names one. Errors are counted in units in
 * the last place of the format that is written. Here are the bounds and reports that all of them share.
 *
 * TARE_SWEEP=all takes every float in +-128 instead of every 257th. TARE_ACCURACY_TABLE=FILE appends the rows there.
 */
#ifndef TEST_ACCURACY_H
#define TEST_ACCURACY_H
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle/oracle.h"
#include "support/buffers.h"
#include "support/devices.h"
#include "support/numbers.h"
#include "support/parameters.h"
#include "support/random.h"
#include "sweeps.h"
#include "tare.h"

/* ---- Instruction sets ------------------------------------------------------------------------------------------ */

enum { MOST_SETS = 4 };

struct instruction_set {
  const char *name;
  const test_device *device;
  tare_context *context;
};

/* Those of this machine's CPU; one that the library refuses is left out. A GPU has one. */
static inline int open_sets(const test_device *device, struct instruction_set sets[MOST_SETS]) {
  if (device->kind != TARE_DEVICE_CPU) {
    sets[0] = (struct instruction_set){device->name, device, device_context(device, 0)};
    return 1;
  }
  static const char *const names[MOST_SETS] = {"baseline", "avx2", "avx512", "sve"};
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = 1;
  int count = 0;
  for (int i = 0; i < MOST_SETS; ++i) {
    setenv("TARE_ISA", names[i], 1);
    sets[count].name = names[i];
    sets[count].device = device;
    if (tare_context_create(&sets[count].context, &options) == TARE_STATUS_OK)
      count += 1;
    else
      printf("%s: not here (%s)\n", names[i], tare_error_text(NULL));
  }
  cr_assert(count > 0, "no context: %s", tare_error_text(NULL));
  return count;
}

static inline void close_sets(struct instruction_set *sets, int count) {
  for (int i = 0; i < count; ++i) tare_context_destroy(sets[i].context);
}

/* ---- Bounds ---------------------------------------------------------------------------------------------------- */

enum quantity { LOSS, GRADIENT, QUANTITIES };

static inline int32_t written_dtype(int32_t dtype, enum quantity quantity) {
  if (quantity == GRADIENT || dtype == TARE_DTYPE_F64) return dtype;
  return TARE_DTYPE_F32;
}

/* A weight rounds once more, and may move the result to a binade of smaller units: then half a unit more, and units of
 * 2^-23 of the result. For other gammas there is room enough without. */
static inline bool counts_alpha(const struct sweep *sweep) {
  return sweep->alpha >= 0 && sweep->gamma > 0 && sweep->gamma < 0.1;
}

/* In units in the last place: 4*(1+gamma) in single precision, 1 where a half type is written, 1e-13 in double. The
 * alpha of a soft target is two products and a sum more. */
static inline double bound_of(const struct sweep *sweep, bool soft, int32_t written) {
  if (written == TARE_DTYPE_F64) return 1e-13 / DBL_EPSILON;
  if (written != TARE_DTYPE_F32) return 1;
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL_STAR) return 6;
  if (sweep->kind == TARE_LOSS_SIGMOID_ASYMMETRIC && sweep->epsilon > 0) return 6 * (1 + sweep->gamma);
  if (sweep->kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL && soft) return 4 * (1 + sweep->gamma + sweep->epsilon);
  const double of_alpha = sweep->alpha < 0 ? 0 : soft ? 2 : counts_alpha(sweep) ? 0.5 : 0;
  if (has_own_labels(sweep) && sweep->kind != TARE_LOSS_SIGMOID_QUALITY_FOCAL && soft)
    return sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE ? 6 : 4; /* the gamma of a negative is no part of it */
  if (z_loss_of(sweep) > 0) return 4;
  return 4 * (1 + sweep->gamma + (sweep->kind == TARE_LOSS_SIGMOID_POLY1)) + of_alpha;
}

/* 2^exponent of a normal number, else 0. */
static inline double binade(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  bits &= UINT64_C(0x7ff) << 52;
  memcpy(&value, &bits, sizeof value);
  return value;
}

struct written {
  double epsilon, smallest, floor; /* relative and absolute size of a unit; what tiny results may be off by, in all */
  double bound;
  bool relative; /* units are relative to the result, not to its binade */
};

static inline struct written written_as(const struct sweep *sweep, bool soft, int32_t dtype, enum quantity quantity) {
  int32_t type = written_dtype(dtype, quantity);
  return (struct written){.epsilon = 2 * dtype_roundoff(type),
                          .smallest = dtype_smallest(type),
                          .floor = type == TARE_DTYPE_F64 ? 1e-290 : 1e-36,
                          .bound = bound_of(sweep, soft, type),
                          .relative = type == TARE_DTYPE_F64 || counts_alpha(sweep)};
}

/* 1 / (one unit in the last place of `size`); results below 1e-30 may be off by 1e-36. The bound of double is one of
 * relative error, so there a unit is simply 2^-52 of the size. */
static inline double per_unit(const struct written *written, double want, double size) {
  double scale = written->relative ? fabs(size) : binade(size);
  double unit = fmax(scale * written->epsilon, written->smallest);
  if (fabs(want) < 1e-30) unit = fmax(unit, written->floor / written->bound);
  return 1 / unit;
}

/* ---- Reports --------------------------------------------------------------------------------------------------- */

struct report {
  size_t points;
  double worst, at, detail, got, want;
};

static inline double read_one(int32_t dtype, const void *array, size_t i) {
  if (dtype == TARE_DTYPE_F32) return ((const float *)array)[i];
  if (dtype == TARE_DTYPE_F64) return ((const double *)array)[i];
  return load_element(array, i, dtype);
}

static inline void keep_worse(struct report *report, double error, double got, double want, double at, double detail) {
  if (got == want || (isnan(got) && isnan(want))) return;
  if (!isfinite(error)) error = INFINITY;
  if (error <= report->worst) return;
  *report =
      (struct report){.points = report->points, .worst = error, .at = at, .detail = detail, .got = got, .want = want};
}

/* What is expected of n outputs, and the reciprocal of what counts as one unit. */
struct expected {
  double *want, *per_unit;
};

/* Where the outputs come from: their logits are sign * at[i], and a gradient is sign times what is expected. Detail:
 * the target, or the number of classes of a softmax loss. */
struct origin {
  const double *at;
  double sign, detail;
};

static inline void compare(struct report *report, enum quantity quantity, size_t n, int32_t dtype, const void *got,
                           const struct expected *expected, const struct origin *origin) {
  double sign = quantity == GRADIENT ? origin->sign : 1;
  for (size_t i = 0; i < n; ++i) {
    double value = sign * read_one(dtype, got, i);
    double error = fabs(value - expected->want[i]) * expected->per_unit[i];
    if (error <= report->worst) continue;
    keep_worse(report, error, value, expected->want[i], origin->sign * origin->at[i], origin->detail);
  }
  report->points += n;
}

static inline void compare_both(struct report reports[QUANTITIES], const size_t n[QUANTITIES], int32_t dtype,
                                const void *loss, const void *gradient, const struct expected expected[QUANTITIES],
                                const struct origin origins[QUANTITIES]) {
  compare(&reports[LOSS], LOSS, n[LOSS], written_dtype(dtype, LOSS), loss, &expected[LOSS], &origins[LOSS]);
  compare(&reports[GRADIENT], GRADIENT, n[GRADIENT], dtype, gradient, &expected[GRADIENT], &origins[GRADIENT]);
}

__attribute__((format(printf, 1, 2))) static inline void print_row(const char *format, ...) {
  const char *file = getenv("TARE_ACCURACY_TABLE");
  FILE *table = file ? fopen(file, "a") : NULL;
  for (FILE *to = stdout; to; to = to == stdout ? table : NULL) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(to, format, arguments);
    va_end(arguments);
  }
  if (table) fclose(table);
}

/* One row of the table: | loss | dtype | instruction set | points | worst loss | at | worst gradient | at | bounds | */
static inline void conclude(const struct sweep *sweep, bool soft, bool alone, int32_t dtype, const char *isa,
                            const struct report reports[QUANTITIES]) {
  static const char *const names[QUANTITIES] = {"loss", "gradient"};
  const char *text = sweep_text(sweep, soft, alone), *detail = is_softmax(sweep) ? "C" : "t";
  double bounds[QUANTITIES];
  for (int q = 0; q < QUANTITIES; ++q) bounds[q] = written_as(sweep, soft, dtype, (enum quantity)q).bound;
  print_row("| %s | %s | %s | %zu | %.2f | %.9g | %.2f | %.9g | %.4g, %.4g |\n", text, dtype_name(dtype), isa,
            reports[LOSS].points + reports[GRADIENT].points, reports[LOSS].worst, reports[LOSS].at,
            reports[GRADIENT].worst, reports[GRADIENT].at, bounds[LOSS], bounds[GRADIENT]);
  for (int q = alone ? GRADIENT : LOSS; q < QUANTITIES; ++q) {
    cr_expect(reports[q].points > 0, "%s %s %s: no %s was checked", text, dtype_name(dtype), isa, names[q]);
    cr_expect(reports[q].worst <= bounds[q],
              "%s %s %s: %s off by %.4g ulp (bound %.4g) at x = %.17g, %s = %g: got %.17g, want %.17g", text,
              dtype_name(dtype), isa, names[q], reports[q].worst, bounds[q], reports[q].at, detail, reports[q].detail,
              reports[q].got, reports[q].want);
  }
}

/* What one call reads and writes, on its device. */
struct arrays {
  buffer *logits, *labels, *targets, *scores, *loss, *gradient, *state;
  buffer *offset; /* of logit adjustment, or margins; NULL: none */
};

static inline struct arrays place_arrays(const test_device *device, const void *logits, size_t logits_bytes,
                                         const int32_t *labels, const float *targets, size_t targets_bytes,
                                         size_t labels_bytes, size_t loss_bytes) {
  struct arrays arrays = {.logits = buffer_of(device, logits, logits_bytes),
                          .labels = targets == NULL ? buffer_of(device, labels, labels_bytes) : NULL,
                          .targets = targets == NULL ? NULL : buffer_of(device, targets, targets_bytes),
                          .loss = buffer_new(device, loss_bytes, 0),
                          .gradient = buffer_new(device, logits_bytes, 0),
                          .state = buffer_of(device, unit_state, sizeof unit_state)};
  return arrays;
}

static inline void evaluate(const struct instruction_set *set, const struct sweep *sweep, tare_level *level,
                            tare_batch *batch, const struct arrays *arrays) {
  tare_loss_spec loss;
  tare_output output;
  fill_loss(&loss, sweep, arrays->state);
  if (arrays->offset != NULL) /* the first parameter of both */
    loss.logit_adjusted.offset = buffer_memory(arrays->offset);
  tare_output_init(&output);
  level->logits = arrays->logits->memory;
  level->labels = buffer_memory(arrays->labels);
  level->targets = buffer_memory(arrays->targets);
  level->scores = buffer_memory(arrays->scores);
  level->gradient = arrays->gradient->memory;
  batch->levels = level;
  batch->level_count = 1;
  tare_status status = tare_evaluate(set->context, &loss, batch, &output, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", sweep_text(sweep, false, false), tare_error_text(set->context));
  buffer_download(arrays->loss, "loss");
  buffer_download(arrays->gradient, "gradient");
}

static inline void free_arrays(struct arrays *arrays) {
  buffer *all[] = {arrays->logits, arrays->labels,   arrays->targets, arrays->scores,
                   arrays->loss,   arrays->gradient, arrays->state,   arrays->offset};
  for (int i = 0; i < COUNT(all); ++i) buffer_free(all[i]);
}

static inline struct expected allocate_expected(size_t n) {
  struct expected expected = {.want = calloc(n, sizeof(double)), .per_unit = calloc(n, sizeof(double))};
  cr_assert(expected.want && expected.per_unit);
  return expected;
}

static inline void free_expected(struct expected *expected) {
  free(expected->want);
  free(expected->per_unit);
}

#endif
