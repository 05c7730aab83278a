/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chunk of a mask: its sums, or its part of the gradient. It is worked on in blocks that stay in first-level cache.
 * Logits and gradient of the type `real` are used where they lie.
 */

/** Arrays of a block. */
typedef struct mask_block {
  TARE_ALIGNED real x[TARE_BLOCK], t[TARE_BLOCK], valid[TARE_BLOCK], p[TARE_BLOCK], q[TARE_BLOCK];
  TARE_ALIGNED real loss[TARE_BLOCK], derivative[TARE_BLOCK], gradient[TARE_BLOCK];
  TARE_ALIGNED real hard_loss[TARE_BLOCK], hard_derivative[TARE_BLOCK], soft_loss[TARE_BLOCK];
  TARE_ALIGNED real soft_derivative[TARE_BLOCK], raw_x[TARE_BLOCK], raw_t[TARE_BLOCK];
  const real *logits; /* x, or the caller's */
  int32_t n;
  int32_t hides; /* some pixels may not count */
} mask_block;

_Static_assert(sizeof(mask_block) <= TARE_REAL_SCRATCH_BYTES, "raise TARE_REAL_SCRATCH_BYTES");

#if TARE_REAL_BITS == 32
typedef int32_t real_bits;
#else
typedef int64_t real_bits;
#endif

/** a or b. A compiler would turn a plain choice of two loaded numbers into a branch where stores have no mask. */
TARE_INLINE real choose_real(int first, real a, real b) {
  const real_bits keep = first ? (real_bits)-1 : (real_bits)0;
  return from_bits((bits_of(a) & keep) | (bits_of(b) & ~keep));
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

/** u8 targets: a value that is none becomes NaN, for first_wrong_target to find. */
static void load_mask_bytes(const uint8_t *restrict from, int32_t n, real *restrict t) {
  for (int32_t i = 0; i < n; i++) t[i] = from[i] < 2 ? (real)from[i] : (real)NAN; /* hot: mask bytes (any) */
}

static void find_unignored(const uint8_t *restrict from, int32_t n, int32_t ignored, real *restrict valid) {
  for (int32_t i = 0; i < n; i++) valid[i] = from[i] == ignored ? (real)0 : (real)1; /* hot: ignored pixels (any) */
}

static void find_valid(const uint8_t *restrict given, int32_t n, int is_set, real *restrict valid) {
  for (int32_t i = 0; i < n; i++) { /* hot: pixels that count (any) */
    const real before = is_set ? valid[i] : (real)1;
    valid[i] = given[i] ? before : (real)0;
  }
}

/** Logits and targets of what does not count become 0, so that nothing of it is NaN. */
static void hide_pixels(mask_block *b) {
  for (int32_t i = 0; i < b->n; i++) { /* hot: hidden pixels */
    b->x[i] = choose_real(b->valid[i] > 0, b->raw_x[i], 0);
    b->t[i] = choose_real(b->valid[i] > 0, b->raw_t[i], 0);
  }
}

static void load_mask_block(const tare_mask_problem *problem, int64_t mask, int64_t first, mask_block *b) {
  const tare_masks *m = &problem->masks;
  const int64_t at = mask * m->logits_stride + first, target_at = mask * m->targets_stride + first;
  const int ignores = m->target_dtype == TARE_MASK_TARGET_U8 && m->ignore_target >= 0;
  b->hides = m->valid != NULL || ignores;
  b->logits = m->dtype == REAL_DTYPE && !b->hides ? (const real *)m->logits + at : b->x;
  real *const x = b->hides ? b->raw_x : b->x, *const t = b->hides ? b->raw_t : b->t;
  if (b->logits == b->x) load(m->dtype, m->logits, at, 1, b->n, x);
  if (m->target_dtype == TARE_MASK_TARGET_U8)
    load_mask_bytes((const uint8_t *)m->targets + target_at, b->n, t);
  else
    load(m->target_dtype, m->targets, target_at, 1, b->n, t);
  if (ignores) find_unignored((const uint8_t *)m->targets + target_at, b->n, m->ignore_target, b->valid);
  if (m->valid) find_valid(m->valid + mask * m->valid_stride + first, b->n, ignores, b->valid);
  if (b->hides) hide_pixels(b);
}

/** The first target that no formula takes; -1: there is none. */
static int32_t first_wrong_target(const tare_mask_problem *problem, const mask_block *b) {
  const real least = (real)problem->target_least, most = (real)problem->target_most;
  real wrong = 0;
#pragma omp simd reduction(+ : wrong)
  for (int32_t i = 0; i < b->n; i++) { /* hot: mask targets (any) */
    const real above = b->t[i] <= most ? (real)0 : (real)1;
    wrong += b->t[i] >= least ? above : (real)1;
  }
  if (wrong == 0) return -1;
  int32_t i = 0;
  while (b->t[i] >= least && b->t[i] <= most) i++;
  return i;
}

static void clamp_mask_targets(mask_block *b) {
  for (int32_t i = 0; i < b->n; i++) { /* hot: clamped mask targets */
    const real least = b->t[i] > 0 ? b->t[i] : (real)0;
    b->t[i] = least < 1 ? least : (real)1;
  }
}

/** p and q of every pixel; 0 of those that do not count. */
static void find_probabilities(mask_block *b) {
  const real *const restrict x = b->logits;
  for (int32_t i = 0; i < b->n; i++) { /* hot: mask probabilities */
    const terms t = terms_of(x[i]);
    b->p[i] = t.p;
    b->q[i] = t.q;
  }
  if (!b->hides) return;
  for (int32_t i = 0; i < b->n; i++) { /* hot: hidden probabilities */
    b->p[i] *= b->valid[i];
    b->q[i] *= b->valid[i];
  }
}

/* ---- The focal loss ---------------------------------------------------------------------------------------------- */

typedef struct mask_focal {
  formula_parameters parameters;
  real at_0, at_1; /* alpha_t */
} mask_focal;

static mask_focal mask_focal_of(const tare_mask_spec *spec) {
  mask_focal f;
  memset(&f, 0, sizeof f);
  f.parameters.gamma_hi = f.parameters.derivative_gamma = (real)spec->gamma;
  f.parameters.gamma_lo = (real)(spec->gamma - (double)f.parameters.gamma_hi);
  f.at_0 = spec->alpha < 0 ? (real)1 : (real)(1 - spec->alpha);
  f.at_1 = spec->alpha < 0 ? (real)1 : (real)spec->alpha;
  return f;
}

/** By the nearer of the targets 0 and 1. `power` is a constant after inlining. */
TARE_INLINE void hard_mask_focal(mask_block *b, const mask_focal *f, int power, real *restrict loss,
                                 real *restrict derivative) {
  const real *const restrict x = b->logits;
  for (int32_t i = 0; i < b->n; i++) { /* hot: focal loss of masks */
    const int one = b->t[i] > (real)0.5;
    const real weight = one ? f->at_1 : f->at_0;
    const pair found = sigmoid_focal(one ? x[i] : -x[i], weight, weight, &f->parameters, power);
    loss[i] = weight > 0 ? found.loss : (real)0;
    derivative[i] = weight > 0 ? (one ? -found.derivative : found.derivative) : (real)0;
  }
}

TARE_INLINE void soft_mask_focal(mask_block *b, const mask_focal *f, int power) {
  const real *const restrict x = b->logits;
  for (int32_t i = 0; i < b->n; i++) { /* hot: focal loss of soft masks */
    const real t = b->t[i], weight = t * f->at_1 + ((real)1 - t) * f->at_0;
    const pair found = sigmoid_focal_soft(x[i], t, weight, weight, &f->parameters, power);
    b->soft_loss[i] = found.loss;
    b->soft_derivative[i] = found.derivative;
  }
}

static void merge_soft_focal(mask_block *b) {
  for (int32_t i = 0; i < b->n; i++) { /* hot: merged focal loss of masks */
    const int is_soft = b->t[i] > 0 && b->t[i] < 1;
    b->loss[i] = choose_real(is_soft, b->soft_loss[i], b->hard_loss[i]);
    b->derivative[i] = choose_real(is_soft, b->soft_derivative[i], b->hard_derivative[i]);
  }
}

static int has_soft_targets(const mask_block *b) {
  real distance = 0;
#pragma omp simd reduction(+ : distance)
  for (int32_t i = 0; i < b->n; i++) { /* hot: soft targets of masks (any) */
    const real t = b->t[i];
    distance += t > 0 && t < 1 ? (real)1 : (real)0;
  }
  return distance != 0;
}

/** Loss and derivative of each pixel; 0 where a pixel does not count. */
static void find_mask_focal(const tare_mask_problem *problem, mask_block *b) {
  const mask_focal f = mask_focal_of(&problem->spec);
  const int is_soft = problem->masks.target_dtype != TARE_MASK_TARGET_U8 && has_soft_targets(b);
  real *const loss = is_soft ? b->hard_loss : b->loss, *const derivative = is_soft ? b->hard_derivative : b->derivative;
  if (problem->power == TARE_POWER_0) {
    hard_mask_focal(b, &f, TARE_POWER_0, loss, derivative);
    if (is_soft) soft_mask_focal(b, &f, TARE_POWER_0);
  } else if (problem->power == TARE_POWER_2) {
    hard_mask_focal(b, &f, TARE_POWER_2, loss, derivative);
    if (is_soft) soft_mask_focal(b, &f, TARE_POWER_2);
  } else {
    hard_mask_focal(b, &f, TARE_POWER_GENERAL, loss, derivative);
    if (is_soft) soft_mask_focal(b, &f, TARE_POWER_GENERAL);
  }
  if (is_soft) merge_soft_focal(b);
  if (!b->hides) return;
  for (int32_t i = 0; i < b->n; i++) { /* hot: hidden focal loss */
    b->loss[i] *= b->valid[i];
    b->derivative[i] *= b->valid[i];
  }
}

/* ---- Sums -------------------------------------------------------------------------------------------------------- */

static void add_misses(const mask_block *b, tare_mask_partial *sums) {
  double hits = 0, positive = 0, negative = 0;
#pragma omp simd reduction(+ : hits, positive, negative)
  for (int32_t i = 0; i < b->n; i++) { /* hot: sums of masks (any) */
    const mask_misses m = mask_misses_of(b->p[i], b->q[i], b->t[i]);
    hits += (double)(b->p[i] * b->t[i]);
    positive += (double)m.positive;
    negative += (double)m.negative;
  }
  sums->true_positives += hits;
  sums->false_positives += positive;
  sums->false_negatives += negative;
}

static void add_squares(const mask_block *b, tare_mask_partial *sums) {
  double hits = 0, positive = 0, negative = 0;
#pragma omp simd reduction(+ : hits, positive, negative)
  for (int32_t i = 0; i < b->n; i++) { /* hot: squared sums of masks (any) */
    const mask_misses m = mask_squares_of(b->p[i], b->q[i], b->t[i]);
    hits += (double)(b->p[i] * b->t[i]);
    positive += (double)m.positive;
    negative += (double)m.negative;
  }
  sums->true_positives += hits;
  sums->false_positives += positive;
  sums->false_negatives += negative;
}

static void add_mask_block(const tare_mask_problem *problem, int64_t first, mask_block *b, tare_mask_partial *sums) {
  const int32_t wrong = first_wrong_target(problem, b);
  if (wrong >= 0 && sums->first_invalid == INT64_MAX) sums->first_invalid = first + wrong;
  clamp_mask_targets(b);
  find_probabilities(b);
  if (problem->spec.squared)
    add_squares(b, sums);
  else
    add_misses(b, sums);
  sums->pixels += b->hides ? (int64_t)sum(b->valid, b->n) : b->n;
  if (problem->spec.focal_weight == 0) return;
  find_mask_focal(problem, b);
  sums->focal += sum(b->loss, b->n);
}

static void sum_mask_chunk(const tare_mask_problem *problem, const tare_mask_piece *piece, tare_scratch *scratch) {
  mask_block *const b = (void *)scratch->of_real;
  const int64_t start = piece->chunk * TARE_MASK_CHUNK, pixels = tare_mask_chunk_pixels(problem, piece->chunk);
  tare_mask_partial sums = {.first_invalid = INT64_MAX};
  for (int64_t done = 0; done < pixels; done += TARE_BLOCK) {
    b->n = (int32_t)(pixels - done < TARE_BLOCK ? pixels - done : TARE_BLOCK);
    load_mask_block(problem, piece->mask, start + done, b);
    add_mask_block(problem, start + done, b, &sums);
  }
  *piece->sums = sums;
}

/* ---- The gradient ------------------------------------------------------------------------------------------------ */

/** `factor`: scale over divisor. */
static mask_slope mask_slope_of(const tare_mask_result *result, double factor) {
  int exponent = 0;
  const double whole = result->overlap.factor * factor;
  const double fraction = isfinite(whole) ? frexp(whole, &exponent) : whole;
  mask_slope s;
  s.of_zeros = (real)result->overlap.of_zeros;
  s.of_ones = (real)result->overlap.of_ones;
  s.of_hits = (real)result->overlap.of_hits;
  s.first = (real)ldexp(fraction, exponent / 2);
  s.second = (real)ldexp(1, exponent - exponent / 2);
  s.focal = (real)(result->focal_factor * factor);
  return s;
}

static void derive_mask(const mask_block *b, const mask_slope *s, real *restrict to) {
  for (int32_t i = 0; i < b->n; i++) to[i] = mask_derivative(b->p[i], b->q[i], b->t[i], s); /* hot: mask gradient */
}

static void derive_squared_mask(const mask_block *b, const mask_slope *s, real *restrict to) {
  for (int32_t i = 0; i < b->n; i++) /* hot: squared mask gradient */
    to[i] = mask_squared_derivative(b->p[i], b->q[i], b->t[i], s);
}

static void add_mask_focal(const mask_block *b, real factor, real *restrict to) {
  for (int32_t i = 0; i < b->n; i++) /* hot: focal gradient of masks */
    to[i] += b->derivative[i] == 0 ? (real)0 : b->derivative[i] * factor;
}

/** A scale that is not finite, after all else. What would be written as 0 without it stays 0. */
static void scale_mask_gradient(const tare_mask_piece *piece, int32_t dtype, int32_t n, real *gradient) {
  for (int32_t i = 0; i < n; i++) {
    const double unscaled = round_to_dtype(dtype, (double)gradient[i]);
    gradient[i] = unscaled == 0 ? (real)0 : (real)(unscaled * piece->scale);
  }
}

static void write_mask_block(const tare_mask_problem *problem, const tare_mask_piece *piece, int64_t first,
                             mask_block *b) {
  const mask_slope slope = mask_slope_of(piece->result, piece->factor);
  const int64_t at = piece->mask * problem->output.gradient_stride + first;
  const int32_t dtype = problem->masks.dtype;
  real *const to = dtype == REAL_DTYPE ? (real *)problem->output.gradient + at : b->gradient;
  load_mask_block(problem, piece->mask, first, b);
  clamp_mask_targets(b);
  find_probabilities(b);
  if (problem->spec.focal_weight != 0) find_mask_focal(problem, b);
  if (problem->spec.squared)
    derive_squared_mask(b, &slope, to);
  else
    derive_mask(b, &slope, to);
  if (problem->spec.focal_weight != 0) add_mask_focal(b, slope.focal, to);
  if (piece->after) scale_mask_gradient(piece, dtype, b->n, to);
  if (to == b->gradient) store_lines(dtype, problem->output.gradient, at, b->n, 1, 1, b->n, to);
}

/** A mask without a gradient is not read: its logits may be NaN. */
static void write_mask_chunk(const tare_mask_problem *problem, const tare_mask_piece *piece, tare_scratch *scratch) {
  mask_block *const b = (void *)scratch->of_real;
  const int64_t start = piece->chunk * TARE_MASK_CHUNK, pixels = tare_mask_chunk_pixels(problem, piece->chunk);
  const size_t bytes = (size_t)tare_dtype_bytes(problem->masks.dtype);
  const int64_t at = piece->mask * problem->output.gradient_stride + start;
  if (piece->result->overlap.factor == 0 && piece->result->focal_factor == 0) {
    memset((char *)problem->output.gradient + (ptrdiff_t)bytes * at, 0, bytes * (size_t)pixels);
    return;
  }
  for (int64_t done = 0; done < pixels; done += TARE_BLOCK) {
    b->n = (int32_t)(pixels - done < TARE_BLOCK ? pixels - done : TARE_BLOCK);
    write_mask_block(problem, piece, start + done, b);
  }
}
