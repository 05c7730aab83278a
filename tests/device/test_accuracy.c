/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How exact the library is: dense sweeps of every loss and gradient against the oracle, for every number format and
 * every instruction set of this machine, and on a GPU where TARE_TEST_DEVICES names one. Errors are counted in units in the last place of the format that is written.
 *
 * TARE_SWEEP=all takes every float in +-128 instead of every 64th. TARE_ACCURACY_TABLE=FILE appends the rows there.
 */
#define _POSIX_C_SOURCE 200809L

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
#include "support/random.h"
#include "tare.h"

/* ---- Instruction sets ------------------------------------------------------------------------------------------ */

enum { MOST_SETS = 3 };

struct instruction_set {
  const char *name;
  const test_device *device;
  tare_context *context;
};

/* Those of this machine's CPU; one that the library refuses is left out. A GPU has one. */
static int open_sets(const test_device *device, struct instruction_set sets[MOST_SETS]) {
  if (device->kind != TARE_DEVICE_CPU) {
    sets[0] = (struct instruction_set){device->name, device, device_context(device, 0)};
    return 1;
  }
  static const char *const names[MOST_SETS] = {"baseline", "avx2", "avx512"};
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

static void close_sets(struct instruction_set *sets, int count) {
  for (int i = 0; i < count; ++i) tare_context_destroy(sets[i].context);
}

/* ---- What is swept --------------------------------------------------------------------------------------------- */

struct sweep {
  tare_loss_kind kind;
  double alpha, gamma,
      epsilon; /* alpha below 0: off; gamma: also beta; epsilon: of Poly-1, mu of GHM-R, the exponent of
                                   p of IoU-aware, 1: the modulator is detached */
};

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
static const struct sweep score_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0},
                                            {TARE_LOSS_SIGMOID_CE, 0.25, 0, 0},
                                            {TARE_LOSS_SIGMOID_VARIFOCAL, 0.75, 2, 0},
                                            {TARE_LOSS_SIGMOID_VARIFOCAL, -1, 0.5, 1},
                                            {TARE_LOSS_SIGMOID_QUALITY_FOCAL, -1, 2, 0},
                                            {TARE_LOSS_SIGMOID_QUALITY_FOCAL, 0.25, 0.5, 0},
                                            {TARE_LOSS_SIGMOID_MATCHABILITY, -1, 1.5, 1},
                                            {TARE_LOSS_SIGMOID_IOU_AWARE, -1, 2, 0.25}};
static const struct sweep soft_sweeps[] = {{TARE_LOSS_SIGMOID_CE, -1, 0, 0},      {TARE_LOSS_SIGMOID_CE, 0.25, 0, 0},
                                           {TARE_LOSS_GHM_C, -1, 0, 0},           {TARE_LOSS_SIGMOID_FOCAL, -1, 0.5, 0},
                                           {TARE_LOSS_SIGMOID_FOCAL, 0.25, 2, 0}, {TARE_LOSS_SIGMOID_FOCAL, -1, 3.7, 0},
                                           {TARE_LOSS_SIGMOID_POLY1, -1, 2, 1}};
static const struct sweep ghm_r_sweeps[] = {{TARE_LOSS_GHM_R, -1, 0, 0.02}, {TARE_LOSS_GHM_R, -1, 0, 1}};

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static bool takes_modulator(const struct sweep *sweep) {
  return sweep->kind == TARE_LOSS_SIGMOID_VARIFOCAL || sweep->kind == TARE_LOSS_SIGMOID_MATCHABILITY;
}

/* A label's element is no mirror of a negative. */
static bool has_own_labels(const struct sweep *sweep) {
  return takes_modulator(sweep) || sweep->kind == TARE_LOSS_SIGMOID_QUALITY_FOCAL ||
         sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE;
}

static const char *epsilon_text(const struct sweep *sweep) {
  return sweep->kind == TARE_LOSS_GHM_R ? "mu" : sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE ? "exponent of p" : "eps";
}

static const char *sweep_text(const struct sweep *sweep, bool soft, bool alone) {
  static char text[96];
  int used = snprintf(text, sizeof text, "%s", tare_loss_name(sweep->kind));
  if (sweep->gamma > 0) used += snprintf(text + used, sizeof text - (size_t)used, " gamma %g", sweep->gamma);
  if (sweep->alpha >= 0) used += snprintf(text + used, sizeof text - (size_t)used, " alpha %g", sweep->alpha);
  if (takes_modulator(sweep) && sweep->epsilon > 0)
    used += snprintf(text + used, sizeof text - (size_t)used, " detached");
  else if (sweep->epsilon > 0)
    used += snprintf(text + used, sizeof text - (size_t)used, " %s %g", epsilon_text(sweep), sweep->epsilon);
  snprintf(text + used, sizeof text - (size_t)used, "%s", soft ? ", soft targets" : alone ? ", gradient alone" : "");
  return text;
}

static bool is_softmax(const struct sweep *sweep) {
  return sweep->kind == TARE_LOSS_SOFTMAX_CE || sweep->kind == TARE_LOSS_SOFTMAX_FOCAL ||
         sweep->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED;
}

/* GHM with one bin whose 1/GD is 1, handed in: the bare element. Words as the manual lays a state out. */
static const double unit_state[5] = {0, 0, 0, 1, 1};

static void fill_loss(tare_loss_spec *loss, const struct sweep *sweep, const buffer *state) {
  tare_loss_spec_init(loss, sweep->kind);
  switch (sweep->kind) {
    case TARE_LOSS_SIGMOID_CE:
      loss->ce.alpha = sweep->alpha;
      break;
    case TARE_LOSS_SIGMOID_FOCAL:
    case TARE_LOSS_SOFTMAX_FOCAL:
      loss->focal.alpha = sweep->alpha;
      loss->focal.gamma = sweep->gamma;
      break;
    case TARE_LOSS_SIGMOID_POLY1:
      loss->poly1.alpha = sweep->alpha;
      loss->poly1.gamma = sweep->gamma;
      loss->poly1.epsilon = sweep->epsilon;
      break;
    case TARE_LOSS_SIGMOID_VARIFOCAL:
      loss->varifocal.alpha = sweep->alpha;
      loss->varifocal.gamma = sweep->gamma;
      loss->varifocal.modulator = sweep->epsilon > 0 ? TARE_MODULATOR_DETACHED : TARE_MODULATOR_DIFFERENTIATED;
      break;
    case TARE_LOSS_SIGMOID_QUALITY_FOCAL:
      loss->quality_focal.alpha = sweep->alpha;
      loss->quality_focal.beta = sweep->gamma;
      break;
    case TARE_LOSS_SIGMOID_MATCHABILITY:
      loss->matchability.alpha = sweep->alpha;
      loss->matchability.gamma = sweep->gamma;
      loss->matchability.modulator = sweep->epsilon > 0 ? TARE_MODULATOR_DETACHED : TARE_MODULATOR_DIFFERENTIATED;
      break;
    case TARE_LOSS_SIGMOID_IOU_AWARE:
      loss->iou_aware.gamma = sweep->gamma;
      loss->iou_aware.p_exponent = sweep->epsilon;
      break;
    case TARE_LOSS_GHM_C:
    case TARE_LOSS_GHM_R:
      loss->ghm.bins = 1;
      loss->ghm.use_stored_density = 1;
      loss->ghm.state = buffer_memory(state);
      if (sweep->kind == TARE_LOSS_GHM_R) loss->ghm.mu = sweep->epsilon;
      break;
    default:
      break;
  }
}

/* ---- Bounds ---------------------------------------------------------------------------------------------------- */

enum quantity { LOSS, GRADIENT, QUANTITIES };

static int32_t written_dtype(int32_t dtype, enum quantity quantity) {
  if (quantity == GRADIENT || dtype == TARE_DTYPE_F64) return dtype;
  return TARE_DTYPE_F32;
}

/* A weight rounds once more, and may move the result to a binade of smaller units: then half a unit more, and units of
 * 2^-23 of the result. For other gammas there is room enough without. */
static bool counts_alpha(const struct sweep *sweep) {
  return sweep->alpha >= 0 && sweep->gamma > 0 && sweep->gamma < 0.1;
}

/* In units in the last place: 4*(1+gamma) in single precision, 1 where a half type is written, 1e-13 in double. The
 * alpha of a soft target is two products and a sum more. */
static double bound_of(const struct sweep *sweep, bool soft, int32_t written) {
  if (written == TARE_DTYPE_F64) return 1e-13 / DBL_EPSILON;
  if (written != TARE_DTYPE_F32) return 1;
  const double of_alpha = sweep->alpha < 0 ? 0 : soft ? 2 : counts_alpha(sweep) ? 0.5 : 0;
  if (has_own_labels(sweep) && sweep->kind != TARE_LOSS_SIGMOID_QUALITY_FOCAL && soft)
    return sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE ? 6 : 4; /* the gamma of a negative is no part of it */
  return 4 * (1 + sweep->gamma + (sweep->kind == TARE_LOSS_SIGMOID_POLY1)) + of_alpha;
}

/* 2^exponent of a normal number, else 0. */
static double binade(double value) {
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

static struct written written_as(const struct sweep *sweep, bool soft, int32_t dtype, enum quantity quantity) {
  int32_t type = written_dtype(dtype, quantity);
  return (struct written){.epsilon = 2 * dtype_roundoff(type),
                          .smallest = dtype_smallest(type),
                          .floor = type == TARE_DTYPE_F64 ? 1e-290 : 1e-36,
                          .bound = bound_of(sweep, soft, type),
                          .relative = type == TARE_DTYPE_F64 || counts_alpha(sweep)};
}

/* 1 / (one unit in the last place of `size`); results below 1e-30 may be off by 1e-36. The bound of double is one of
 * relative error, so there a unit is simply 2^-52 of the size. */
static double per_unit(const struct written *written, double want, double size) {
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

static double read_one(int32_t dtype, const void *array, size_t i) {
  if (dtype == TARE_DTYPE_F32) return ((const float *)array)[i];
  if (dtype == TARE_DTYPE_F64) return ((const double *)array)[i];
  return load_element(array, i, dtype);
}

static void keep_worse(struct report *report, double error, double got, double want, double at, double detail) {
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

/* Where the outputs come from: their logits are sign * at[i], and a gradient is sign times what is expected. Detail: the
 * target, or the number of classes of a softmax loss. */
struct origin {
  const double *at;
  double sign, detail;
};

static void compare(struct report *report, enum quantity quantity, size_t n, int32_t dtype, const void *got,
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

static void compare_both(struct report reports[QUANTITIES], const size_t n[QUANTITIES], int32_t dtype, const void *loss,
                         const void *gradient, const struct expected expected[QUANTITIES],
                         const struct origin origins[QUANTITIES]) {
  compare(&reports[LOSS], LOSS, n[LOSS], written_dtype(dtype, LOSS), loss, &expected[LOSS], &origins[LOSS]);
  compare(&reports[GRADIENT], GRADIENT, n[GRADIENT], dtype, gradient, &expected[GRADIENT], &origins[GRADIENT]);
}

__attribute__((format(printf, 1, 2))) static void print_row(const char *format, ...) {
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
static void conclude(const struct sweep *sweep, bool soft, bool alone, int32_t dtype, const char *isa,
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

/* ---- Points: bit patterns of a format, in steps ---------------------------------------------------------------- */

struct segment {
  uint64_t first, last, step;
};

static uint64_t bits_of(int32_t dtype, double value) {
  uint64_t bits = 0;
  store_element(&bits, 0, dtype, value);
  return bits;
}

static uint64_t float_step(bool sparse) {
  const char *sweep = getenv("TARE_SWEEP");
  if (sweep && strcmp(sweep, "all") == 0) return sparse ? 64 : 1;
  return (sparse ? 4001 : 64) * (uint64_t)test_size(1, 61);
}

/* Segment number `index` of the magnitudes of a format. f32: +-128, what lies beyond, every binade's edge. */
static bool f32_segment(int index, bool sparse, struct segment *segment) {
  uint64_t reach = bits_of(TARE_DTYPE_F32, 128), end = bits_of(TARE_DTYPE_F32, FLT_MAX);
  if (index == 0)
    *segment = (struct segment){0, reach, float_step(sparse)};
  else if (index == 1)
    *segment = (struct segment){reach, end, 16381};
  else {
    uint64_t edge = (uint64_t)(index - 1) << 23;
    *segment = (struct segment){edge - 64, edge + 64, sparse ? 8 : 1};
    return edge < end;
  }
  return true;
}

static bool f64_segment(int index, bool sparse, struct segment *segment) {
  static const double ends[] = {0, 0x1p-30, 1024, DBL_MAX};
  static const uint64_t steps[] = {20000, 1000000, 20000}; /* points */
  if (index >= 3) return false;
  uint64_t first = bits_of(TARE_DTYPE_F64, ends[index]), last = bits_of(TARE_DTYPE_F64, ends[index + 1]);
  uint64_t points = steps[index] / (uint64_t)test_size(sparse ? 20 : 1, 100);
  *segment = (struct segment){first, last, (last - first) / points | 1};
  return true;
}

static bool next_segment(int32_t dtype, int index, bool sparse, struct segment *segment) {
  if (dtype == TARE_DTYPE_F32) return f32_segment(index, sparse, segment);
  if (dtype == TARE_DTYPE_F64) return f64_segment(index, sparse, segment);
  *segment = (struct segment){0, 0x7fff, 1};
  return index == 0;
}

enum { CHUNK = 8192 };

/* A run of points, and where the next begins. */
struct points {
  int32_t dtype;
  bool sparse;
  int sign, index;
  uint64_t position; /* within the segment */
  size_t n;
  double z[CHUNK];
  double logits[2][CHUNK]; /* as stored in the format: z and -z */
  struct oracle_point at[CHUNK];
};

static void add_point(struct points *points, uint64_t magnitude) {
  uint64_t sign = UINT64_C(1) << (8 * dtype_size(points->dtype) - 1);
  size_t size = dtype_size(points->dtype);
  uint64_t bits = points->sign ? magnitude | sign : magnitude, mirrored = bits ^ sign;
  memcpy((char *)points->logits[0] + points->n * size, &bits, size);
  memcpy((char *)points->logits[1] + points->n * size, &mirrored, size);
  points->z[points->n] = read_one(points->dtype, points->logits[0], points->n);
  points->at[points->n] = oracle_point(points->z[points->n]);
  points->n += 1;
}

/* Fills the next chunk; false when there is none. */
static bool next_points(struct points *points) {
  struct segment segment;
  points->n = 0;
  for (; points->sign < 2; points->sign += 1, points->index = 0) {
    for (; next_segment(points->dtype, points->index, points->sparse, &segment); points->index += 1) {
      uint64_t magnitude = segment.first + points->position * segment.step;
      for (; magnitude <= segment.last && points->n < CHUNK; magnitude += segment.step, points->position += 1)
        add_point(points, magnitude);
      if (points->n == CHUNK) return true;
      points->position = 0;
    }
  }
  return points->n > 0;
}

/* ---- The sigmoid family ---------------------------------------------------------------------------------------- */

/* How the points become logits and targets. A hard negative has the logits mirrored, so that z is the same. */
struct side {
  double t;
  bool dense;  /* the target is given as a number: for each element, or as the score of a label */
  bool scored; /* the number is a label's score */
  bool alone;  /* only the gradient is asked for, which a GPU has a shorter way to */
};

static const struct side hard_sides[] = {{1, false, false, false}, {0, false, false, false}};
static const struct side alone_sides[] = {{0, false, false, true}};
static const struct side soft_sides[] = {{0, true, false, false},   {1e-3, true, false, false},
                                         {0.1, true, false, false}, {0.5, true, false, false},
                                         {0.9, true, false, false}, {1, true, false, false}};
static const struct side score_sides[] = {{1e-30, true, true, false},
                                          {1e-3, true, true, false},
                                          {0.5, true, true, false},
                                          {0.9, true, true, false},
                                          {1, true, true, false}};

static bool is_mirrored(const struct side *side) { return !side->dense && side->t == 0; }

static struct oracle_pair combine(struct oracle_pair main, double factor, struct oracle_pair extra) {
  return (struct oracle_pair){factor * main.value + extra.value, factor * main.derivative + extra.derivative};
}

static enum oracle_loss oracle_of(const struct sweep *sweep) {
  switch (sweep->kind) {
    case TARE_LOSS_SIGMOID_QUALITY_FOCAL:
      return ORACLE_SIGMOID_QUALITY_FOCAL;
    case TARE_LOSS_SIGMOID_MATCHABILITY:
      return ORACLE_SIGMOID_MATCHABILITY;
    case TARE_LOSS_SIGMOID_IOU_AWARE:
      return ORACLE_SIGMOID_IOU_AWARE;
    default:
      return ORACLE_SIGMOID_VARIFOCAL;
  }
}

/* By x, of a loss whose labels have a formula of their own. */
static struct oracle_detached own_pair(const struct sweep *sweep, double x, double t, bool is_label) {
  const struct oracle_problem problem = {
      .loss = oracle_of(sweep), .gamma = sweep->gamma, .p_exponent = sweep->epsilon, .detached = sweep->epsilon > 0};
  return oracle_element(&problem, (struct oracle_element){x, t, is_label ? 1 : t, sweep->alpha, NAN});
}

/* By z, for a hard target. */
static struct oracle_pair hard_pair(const struct sweep *sweep, const struct side *side, double z,
                                    struct oracle_point at) {
  double alpha = oracle_alpha(sweep->alpha, side->t);
  struct oracle_pair none = {0, 0};
  if (has_own_labels(sweep)) {
    struct oracle_detached by_x = own_pair(sweep, side->t == 1 ? z : -z, side->t, false);
    return (struct oracle_pair){by_x.value, side->t == 1 ? by_x.derivative : -by_x.derivative};
  }
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL) return combine(oracle_focal(at, sweep->gamma), alpha, none);
  if (sweep->kind == TARE_LOSS_SIGMOID_POLY1)
    return combine(oracle_focal(at, sweep->gamma), alpha, oracle_poly1_extra(at, sweep->gamma, sweep->epsilon));
  return combine(oracle_ce(at), alpha, none);
}

/* By x, for a target given as a number. */
static struct oracle_pair soft_pair(const struct sweep *sweep, const struct side *side, double x, double t) {
  double alpha = oracle_alpha(sweep->alpha, side->scored ? 1 : t);
  struct oracle_pair none = {0, 0};
  if (has_own_labels(sweep)) {
    struct oracle_detached own = own_pair(sweep, x, t, side->scored);
    return (struct oracle_pair){own.value, own.derivative};
  }
  if (sweep->kind == TARE_LOSS_GHM_R) return oracle_asl1(x - t, sweep->epsilon);
  if (sweep->kind == TARE_LOSS_SIGMOID_FOCAL) return combine(oracle_soft_focal(x, t, sweep->gamma), alpha, none);
  if (sweep->kind == TARE_LOSS_SIGMOID_POLY1)
    return combine(oracle_soft_focal(x, t, sweep->gamma), alpha,
                   oracle_soft_poly1_extra(x, t, sweep->gamma, sweep->epsilon));
  return combine(oracle_soft_ce(x, t), alpha, none);
}

/* Soft targets cancel truly near p = t: the error is measured against the terms of the sums (max(x,0), x*t and the
 * tail; p, t and the derivative of the modulator) instead of against what is left of them. */
static struct oracle_pair soft_size(const struct sweep *sweep, const struct side *side, double x, double t,
                                    struct oracle_pair want) {
  if (t == 0 || t == 1 || sweep->kind == TARE_LOSS_GHM_R || !isfinite(x)) return want;
  struct oracle_point at = oracle_point(x);
  double modulator = oracle_alpha(sweep->alpha, side->scored ? 1 : t) * pow(at.p * (1 - t) + at.q * t, sweep->gamma);
  if (has_own_labels(sweep)) modulator = sweep->kind == TARE_LOSS_SIGMOID_VARIFOCAL ? t : 1;
  if (sweep->kind == TARE_LOSS_SIGMOID_MATCHABILITY) t = pow(t, sweep->gamma);
  if (sweep->kind == TARE_LOSS_SIGMOID_IOU_AWARE) t = own_pair(sweep, x, t, true).factor;
  double rest = want.derivative - modulator * (at.p - t);
  return (struct oracle_pair){.value = want.value + modulator * 2 * fmax(x, 0) * t,
                              .derivative = modulator * (at.p + t) + fabs(rest)};
}

/* |p-t|^beta*CE(x,t) and its derivative, if |p-t| were s. */
static struct oracle_pair quality_at(double beta, double x, double t, double s) {
  struct oracle_point at = oracle_point(x);
  double ce = oracle_soft_ce(x, t).value, term = isinf(ce) ? 0 : at.p * at.q * ce;
  return (struct oracle_pair){pow(s, beta) * ce, pow(s, beta + 1) + (beta > 0 ? beta * pow(s, beta - 1) * term : 0)};
}

/* What |p-t| off by 4 ulp of p+t makes of quality focal loss, and 4*(1+beta) ulp of the results. Where it may be 0 and
 * beta is below 1, the derivative may be anything. */
static void widen_quality(const struct sweep *sweep, const struct written *written, enum quantity quantity, double x,
                          double t, double *unit) {
  if (*unit == 0) return; /* not measured */
  const double p = oracle_point(x).p, s = fabs(p - t), alpha = sweep->alpha < 0 ? 1 : sweep->alpha;
  const double off = (written->epsilon < 1e-10 ? 0x1p-50 : 0x1p-21) * (p + t);
  const struct oracle_pair here = quality_at(sweep->gamma, x, t, s), above = quality_at(sweep->gamma, x, t, s + off);
  struct oracle_pair below = quality_at(sweep->gamma, x, t, fmax(s - off, 0));
  if (s <= off) below = (struct oracle_pair){0, -above.derivative};
  const double reach = quantity == LOSS
                           ? fmax(fabs(above.value - here.value), fabs(below.value - here.value))
                           : fmax(fabs(above.derivative - here.derivative), fabs(below.derivative - here.derivative));
  *unit = s <= off && sweep->gamma < 1 && quantity == GRADIENT ? 0 : 1 / (1 / *unit + alpha * reach / written->bound);
}

static void expect_chunk(const struct sweep *sweep, const struct side *side, const struct points *points,
                         struct expected expected[QUANTITIES]) {
  struct written loss = written_as(sweep, side->dense, points->dtype, LOSS);
  struct written gradient = written_as(sweep, side->dense, points->dtype, GRADIENT);
  double t = (double)(float)side->t;
  for (size_t i = 0; i < points->n; ++i) {
    struct oracle_pair want =
        side->dense ? soft_pair(sweep, side, points->z[i], t) : hard_pair(sweep, side, points->z[i], points->at[i]);
    struct oracle_pair size = side->dense ? soft_size(sweep, side, points->z[i], t, want) : want;
    expected[LOSS].want[i] = want.value;
    expected[LOSS].per_unit[i] = per_unit(&loss, want.value, size.value);
    expected[GRADIENT].want[i] = want.derivative;
    expected[GRADIENT].per_unit[i] = per_unit(&gradient, want.derivative, size.derivative);
    if (sweep->kind != TARE_LOSS_SIGMOID_QUALITY_FOCAL || t == 0 || t == 1 || isinf(want.value)) continue;
    widen_quality(sweep, &loss, LOSS, points->z[i], t, &expected[LOSS].per_unit[i]);
    widen_quality(sweep, &gradient, GRADIENT, points->z[i], t, &expected[GRADIENT].per_unit[i]);
  }
}

/* What one call reads and writes, on its device. */
struct arrays {
  buffer *logits, *labels, *targets, *scores, *loss, *gradient, *state;
  buffer *offset; /* of logit adjustment; NULL: none */
};

static struct arrays place_arrays(const test_device *device, const void *logits, size_t logits_bytes,
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

static void evaluate(const struct instruction_set *set, const struct sweep *sweep, tare_level *level, tare_batch *batch,
                     const struct arrays *arrays) {
  tare_loss_spec loss;
  tare_output output;
  fill_loss(&loss, sweep, arrays->state);
  if (arrays->offset != NULL) loss.logit_adjusted.offset = buffer_memory(arrays->offset);
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

static void free_arrays(struct arrays *arrays) {
  buffer *all[] = {arrays->logits, arrays->labels,   arrays->targets, arrays->scores,
                   arrays->loss,   arrays->gradient, arrays->state,   arrays->offset};
  for (int i = 0; i < COUNT(all); ++i) buffer_free(all[i]);
}

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

enum { MOST_SWEEPS = 8 };

static struct expected allocate_expected(size_t n) {
  struct expected expected = {.want = calloc(n, sizeof(double)), .per_unit = calloc(n, sizeof(double))};
  cr_assert(expected.want && expected.per_unit);
  return expected;
}

static void free_expected(struct expected *expected) {
  free(expected->want);
  free(expected->per_unit);
}

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
                             score_job = SCORED(score_sweeps);

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

/* ---- Softmax --------------------------------------------------------------------------------------------------- */

static const struct sweep softmax_sweeps[] = {
    {TARE_LOSS_SOFTMAX_CE, -1, 0, 0},      {TARE_LOSS_SOFTMAX_FOCAL, -1, 0.5, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 1, 0},   {TARE_LOSS_SOFTMAX_FOCAL, -1, 1.5, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, 0.25, 2, 0}, {TARE_LOSS_SOFTMAX_FOCAL, -1, 3.7, 0},
    {TARE_LOSS_SOFTMAX_FOCAL, -1, 5, 0},   {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, 0, 0}};
static const struct sweep soft_softmax_sweeps[] = {{TARE_LOSS_SOFTMAX_CE, -1, 0, 0},
                                                   {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, -1, 0, 0}};
static const int64_t widths[] = {2, 3, 17, 81, 1203};

/* Rows of logits with their labels or smoothed targets, and a whole row's room for every output. */
struct softmax_batch {
  int32_t dtype;
  int64_t rows, classes;
  double *logits, *stored, *targets, *dx, *row_at;
  double *offset; /* [classes], exact floats, of logit adjustment; NULL: none */
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
    double x = fmax(-400, fmin(400, spread * random_normal(random)));
    if (c == y && random_uniform(random) < 0.3) x += 20 * random_uniform(random);
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

static struct softmax_batch draw_softmax(const struct sweep *sweep, int32_t dtype, int64_t classes) {
  int64_t rows = test_size(40000, 4000) / classes + 30, elements = rows * classes;
  struct softmax_batch batch = {.dtype = dtype,
                                .rows = rows,
                                .classes = classes,
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
  random_source random = random_from((uint64_t)(10 + classes));
  for (int64_t row = 0; row < rows; ++row) draw_row(&batch, row, &random);
  return batch;
}

static void free_softmax(struct softmax_batch *batch) {
  double *arrays[] = {batch->logits, batch->stored, batch->targets, batch->dx, batch->row_at, batch->offset};
  for (int i = 0; i < COUNT(arrays); ++i) free(arrays[i]);
  free(batch->stored_targets);
  free(batch->labels);
  for (int q = 0; q < QUANTITIES; ++q) free_expected(&batch->expected[q]);
}

/* max |z_j - m|, m the largest logit off the label: what the differences of logits add to the bound, in ulp. A sum of
 * logit and offset adds twice its own size. */
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
  return reach + 2 * size;
}

/* Units are widened so that the bound plus the row's reach, in true ulp, comes out as the bound. */
static void expect_softmax(const struct sweep *sweep, bool soft, struct softmax_batch *batch) {
  struct written loss = written_as(sweep, soft, batch->dtype, LOSS);
  struct written gradient = written_as(sweep, soft, batch->dtype, GRADIENT);
  double alpha = sweep->alpha < 0 ? 1 : sweep->alpha;
  for (int64_t row = 0; row < batch->rows; ++row) {
    const double *x = batch->logits + row * batch->classes, *t = batch->targets + row * batch->classes;
    double want = alpha * (soft ? oracle_adjusted_soft_softmax_row(batch->classes, x, batch->offset, t, batch->dx)
                                : oracle_adjusted_softmax_row(batch->classes, x, batch->offset, batch->labels[row],
                                                              sweep->gamma, batch->dx));
    double reach = reach_of(batch, row);
    double widening = gradient.bound > 1 ? gradient.bound / (gradient.bound + reach) : 1;
    batch->expected[LOSS].want[row] = want;
    batch->expected[LOSS].per_unit[row] = per_unit(&loss, want, want) * loss.bound / (loss.bound + reach);
    for (int64_t c = 0; c < batch->classes; ++c) {
      double dx = alpha * batch->dx[c], size = soft ? fabs(dx) + 2 * t[c] : dx; /* (sum t)*p and t cancel truly */
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
  for (int64_t c = 0; rows->offset != NULL && c < rows->classes; ++c) offset[c] = (float)rows->offset[c];
  if (rows->offset != NULL) arrays.offset = buffer_of(set->device, offset, (size_t)rows->classes * sizeof *offset);
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

Test(accuracy, soft_softmax) {
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < COUNT(dtypes); ++d)
      for (int k = 0; k < COUNT(soft_softmax_sweeps); ++k)
        sweep_softmax(device, &soft_softmax_sweeps[k], true, dtypes[d]);
  }
}
