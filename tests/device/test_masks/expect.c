/* SPDX-License-Identifier: Apache-2.0 */
#include "masks.h"

static struct oracle_mask_setting setting_of(const tare_mask_spec *s) {
  return (struct oracle_mask_setting){s->false_positive_weight,
                                      s->false_negative_weight,
                                      s->exponent,
                                      s->numerator_smoothing,
                                      s->denominator_smoothing,
                                      s->alpha,
                                      s->gamma,
                                      s->squared};
}

static double times(double weight, double value) { return weight == 0 ? 0 : weight * value; }

static double relative(const mask_case *c) {
  if (c->plan.dtype == TARE_DTYPE_F64) return 1e-12;
  return c->plan.spec.focal_weight != 0 ? 1e-6 * (1 + c->plan.spec.gamma) : 1e-6;
}

static void check_number(const char *what, double found, double wanted, double allowed) {
  const int same =
      isfinite(wanted) ? fabs(found - wanted) <= allowed : (isnan(wanted) ? isnan(found) : found == wanted);
  cr_assert(same, "%s is %.17g, not %.17g (allowed %g)", what, found, wanted, allowed);
}

static void check_sums(const mask_case *c, int64_t mask, const struct oracle_mask *o, double loss) {
  tare_mask_sums sums;
  const double r = relative(c), tiny = 1e-36 * (double)c->plan.pixels; /* exp is 0 below 1e-37 */
  memcpy(&sums, c->sums->now + mask * (int64_t)sizeof sums, sizeof sums);
  check_number("true positives", sums.true_positives, o->true_positives, r * fabs(o->true_positives) + tiny);
  check_number("false positives", sums.false_positives, o->false_positives, r * fabs(o->false_positives) + tiny);
  check_number("false negatives", sums.false_negatives, o->false_negatives, r * fabs(o->false_negatives) + tiny);
  if (c->plan.spec.focal_weight != 0) check_number("focal", sums.focal, o->focal_sum, r * fabs(o->focal_sum));
  cr_assert_eq(sums.pixels, o->pixels);
  const double found =
      load_element(c->mask_loss->now, (size_t)mask, c->plan.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32);
  check_number("mask loss", found, loss, r * fabs(loss));
}

/* The largest element of each mask bounds the error of the others. */
static void check_gradient(const mask_case *c, int64_t mask) {
  const int64_t n = c->plan.pixels;
  const double *found = c->found + mask * n, *wanted = c->expected + mask * n;
  const int32_t dtype = c->plan.dtype;
  double largest = 0;
  for (int64_t i = 0; i < n; i++)
    if (isfinite(wanted[i])) largest = fmax(largest, fabs(wanted[i]));
  const double r = dtype == TARE_DTYPE_F64 ? 1e-12 : 1e-5;
  for (int64_t i = 0; i < n; i++) {
    const double rounding = dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16
                                ? 2 * dtype_roundoff(dtype) * fabs(wanted[i]) + dtype_smallest(dtype)
                                : 0;
    const double allowed = r * largest + rounding + 1e-36, got = found[i], want = wanted[i];
    const int same = isfinite(want) ? fabs(got - want) <= allowed : (isnan(want) ? isnan(got) : got == want);
    cr_assert(same, "%s: gradient of pixel %d of mask %d (x %g, t %g) is %.9g, not %.9g (allowed %g)", c->device->name,
              (int)i, (int)mask, c->x[mask * n + i], c->t[mask * n + i], got, want, allowed);
  }
}

static double divisor_of(const mask_case *c, double counted) {
  if (c->plan.normalizer == TARE_NORMALIZER_SUM) return 1;
  if (c->plan.normalizer == TARE_NORMALIZER_VALUE) return 7;
  return counted > 0 ? counted : 1;
}

/* L, overlap and focal loss of a mask; the undivided gradient goes to `expected`. */
static void expect_mask(mask_case *c, int64_t mask, struct oracle_mask *o, double losses[3]) {
  const tare_mask_spec *s = &c->plan.spec;
  const int64_t n = c->plan.pixels;
  const struct oracle_mask_setting setting = setting_of(s);
  double *by_x = c->expected + mask * n, *focal_by_x = malloc((size_t)(n + 1) * sizeof *focal_by_x);
  o->overlap_by_x = by_x;
  o->focal_by_x = focal_by_x;
  oracle_mask(n, c->x + mask * n, c->t + mask * n, c->counts + mask * n, &setting, o);
  for (int64_t i = 0; i < n; i++)
    by_x[i] = times(c->weight[mask], times(s->overlap_weight, by_x[i]) + times(s->focal_weight, focal_by_x[i]));
  losses[1] = times(c->weight[mask], o->overlap);
  losses[2] = s->focal_weight == 0 ? 0 : times(c->weight[mask], o->focal);
  losses[0] = times(s->overlap_weight, losses[1]) + times(s->focal_weight, losses[2]);
  free(focal_by_x);
}

void mask_case_expect(mask_case *c) {
  double counted = 0;
  const double scale = c->plan.scale != 0 ? c->plan.scale : 1;
  memset(c->expected_losses, 0, sizeof c->expected_losses);
  for (int64_t mask = 0; mask < c->plan.masks; mask++) {
    struct oracle_mask o;
    double losses[3];
    expect_mask(c, mask, &o, losses);
    for (int i = 0; i < 3; i++) c->expected_losses[i] += losses[i];
    counted += o.pixels > 0;
  }
  for (int i = 0; i < 3; i++) c->expected_losses[i] /= divisor_of(c, counted);
  for (int64_t i = 0; i < c->plan.masks * c->plan.pixels; i++) c->expected[i] *= scale / divisor_of(c, counted);
}

void mask_case_check(mask_case *c) {
  const tare_status status = mask_case_run(c);
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", c->device->name, tare_error_text(c->device->context));
  buffer_download(c->mask_loss, "mask_loss");
  buffer_download(c->sums, "sums");
  mask_case_expect(c);
  double *const divided = malloc((size_t)(c->plan.masks * c->plan.pixels + 1) * sizeof *divided);
  memcpy(divided, c->expected, (size_t)(c->plan.masks * c->plan.pixels) * sizeof *divided);
  double sizes[3] = {0, 0, 0}; /* of losses of both signs */
  for (int64_t mask = 0; mask < c->plan.masks; mask++) {
    struct oracle_mask o;
    double losses[3];
    expect_mask(c, mask, &o, losses);
    for (int i = 0; i < 3; i++) sizes[i] += fabs(losses[i]);
    check_sums(c, mask, &o, losses[0]);
  }
  memcpy(c->expected, divided, (size_t)(c->plan.masks * c->plan.pixels) * sizeof *divided);
  free(divided);
  static const char *const names[] = {"loss", "overlap loss", "focal loss"};
  for (int i = 0; i < 3; i++) check_number(names[i], c->found_losses[i], c->expected_losses[i], relative(c) * sizes[i]);
  for (int64_t mask = 0; mask < c->plan.masks; mask++) check_gradient(c, mask);
}
