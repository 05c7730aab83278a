/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of running gradients (EQLv2, EFL): steps against the papers' formulas in double, and what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/devices.h"
#include "support/random.h"

enum { MOST = 1203 };

/* A state and its weights on a device, and what the sums must be. */
typedef struct running {
  const test_device *device;
  tare_gradient_balance balance;
  buffer *state, *positive, *negative, *gammas, *sums;
  double P[MOST], N[MOST];
  int64_t steps;
} running;

static running *running_new(const test_device *device, tare_gradient_rule rule, int64_t classes) {
  running *r = calloc(1, sizeof *r);
  const size_t bytes = (size_t)tare_gradient_balance_state_bytes(classes);
  void *zeros = calloc(1, bytes);
  r->device = device;
  r->state = buffer_of(device, zeros, bytes);
  r->positive = buffer_new(device, (size_t)classes * sizeof(float), 4);
  r->negative = buffer_new(device, (size_t)classes * sizeof(float), 4);
  r->gammas = buffer_new(device, (size_t)classes * sizeof(float), 4);
  tare_gradient_balance_init(&r->balance, rule, classes);
  r->balance.state = r->state->memory;
  r->balance.positive_weights = r->positive->memory;
  r->balance.negative_weights = r->negative->memory;
  r->balance.gammas = rule == TARE_GRADIENT_RULE_EFL ? r->gammas->memory : NULL;
  free(zeros);
  return r;
}

static void running_free(running *r) {
  buffer *const all[] = {r->state, r->positive, r->negative, r->gammas, r->sums};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) buffer_free(all[i]);
  free(r);
}

static void check_ok(const running *r, tare_status status) {
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(r->device->context));
}

/* Random sums of a step, some of them 0 or not finite. */
static void step(running *r, random_source *random) {
  static const double odd[] = {0, INFINITY, NAN, -1, 1e-300};
  tare_class_sums sums[MOST];
  memset(sums, 0, sizeof sums);
  for (int64_t c = 0; c < r->balance.classes; c++) {
    double *const to[2] = {&sums[c].positive_gradient, &sums[c].negative_gradient};
    double *const all[2] = {&r->P[c], &r->N[c]};
    for (int side = 0; side < 2; side++) {
      *to[side] = random_below(random, 8) == 0 ? odd[random_below(random, 5)] : 3 * random_uniform(random);
      if (*to[side] > 0 && isfinite(*to[side])) *all[side] += *to[side];
    }
  }
  buffer_free(r->sums);
  r->sums = buffer_of(r->device, sums, (size_t)r->balance.classes * sizeof *sums);
  check_ok(r, tare_gradient_balance_collect(r->device->context, &r->balance, r->sums->memory, NULL));
  check_ok(r, tare_gradient_balance_step(r->device->context, &r->balance, NULL));
  r->steps++;
}

static void check_number(const buffer *b, int64_t c, double want, const char *what) {
  float got;
  memcpy(&got, b->now + 4 * c, sizeof got);
  cr_assert_float_eq((double)got, want, 2e-7 * fabs(want) + 1e-38, "%s of class %d: %.9g, not %.9g", what, (int)c,
                     (double)got, want);
}

/* arXiv 2012.08548, eq. 5 to 7; arXiv 2201.02593, eq. 5 to 7. */
static void check_weights(running *r) {
  const tare_gradient_balance *b = &r->balance;
  const bool is_efl = b->rule == TARE_GRADIENT_RULE_EFL;
  check_ok(r, tare_gradient_balance_weigh(r->device->context, b, NULL));
  buffer_download(r->positive, "positive weights");
  buffer_download(r->negative, "negative weights");
  if (is_efl) buffer_download(r->gammas, "gammas");
  for (int64_t c = 0; c < b->classes; c++) {
    double g = r->P[c] / (r->N[c] + 1e-10), gamma = b->gamma, positive = 1, negative = 1;
    if (is_efl) g = fmin(fmax(g, 0), 1);
    if (r->steps == 0) g = is_efl ? 1 : 100;
    if (is_efl && c != b->exempt) gamma += b->scale * (1 - g);
    if (is_efl) positive = negative = gamma / b->gamma;
    if (!is_efl && c != b->exempt) {
      negative = 1 / (1 + exp(-b->steepness * (g - b->midpoint)));
      positive = 1 + b->gain * (1 - negative);
    }
    check_number(r->positive, c, positive, "positive weight");
    check_number(r->negative, c, negative, "negative weight");
    if (is_efl) check_number(r->gammas, c, gamma, "gamma");
  }
}

static void check_state(running *r) {
  int64_t steps;
  buffer_download(r->state, "state");
  memcpy(&steps, r->state->now, sizeof steps);
  cr_assert_eq(steps, r->steps);
  for (int64_t c = 0; c < r->balance.classes; c++) {
    double sums[2];
    memcpy(sums, r->state->now + 8 * (1 + 2 * r->balance.classes + 2 * c), sizeof sums);
    cr_assert_float_eq(sums[0], r->P[c], 1e-12 * r->P[c], "P of class %d is %g", (int)c, sums[0]);
    cr_assert_float_eq(sums[1], r->N[c], 1e-12 * r->N[c], "N of class %d is %g", (int)c, sums[1]);
  }
}

Test(gradient_balance, twenty_steps) {
  static const int64_t classes[] = {1, 2, 80, MOST};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 8; way++) {
      running *r = running_new(device, (tare_gradient_rule)(way % 2), classes[way / 2]);
      random_source random = random_from(way);
      if (way > 3) r->balance.exempt = classes[way / 2] - 1;
      check_weights(r);
      for (int i = 0; i < 20; i++) {
        step(r, &random);
        check_weights(r);
      }
      check_state(r);
      running_free(r);
    }
  }
}

Test(gradient_balance, a_fresh_state_weighs_nothing) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, TARE_GRADIENT_RULE_EQLV2, 3);
    check_ok(r, tare_gradient_balance_weigh(device->context, &r->balance, NULL));
    buffer_download(r->positive, "positive weights");
    buffer_download(r->negative, "negative weights");
    for (int c = 0; c < 3; c++) {
      float both[2];
      memcpy(&both[0], r->positive->now + 4 * c, 4);
      memcpy(&both[1], r->negative->now + 4 * c, 4);
      cr_assert(both[0] == 1 && both[1] == 1);
    }
    running_free(r);
  }
}

/* Sums beyond double, and a ratio of them that is infinite: a running sum stays at the end, and no weight is NaN. */
Test(gradient_balance, sums_beyond_a_double) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, TARE_GRADIENT_RULE_EQLV2, 1);
    const tare_class_sums sums = {.positive_gradient = 1.5e308};
    r->balance.steepness = 0; /* f = 1/2 */
    r->sums = buffer_of(device, &sums, sizeof sums);
    check_ok(r, tare_gradient_balance_collect(device->context, &r->balance, r->sums->memory, NULL));
    for (int i = 0; i < 2; i++) {
      double positive;
      check_ok(r, tare_gradient_balance_step(device->context, &r->balance, NULL));
      check_ok(r, tare_gradient_balance_weigh(device->context, &r->balance, NULL));
      buffer_download(r->state, "state");
      buffer_download(r->positive, "positive weights");
      buffer_download(r->negative, "negative weights");
      memcpy(&positive, r->state->now + 8 * 3, sizeof positive);
      cr_assert(isfinite(positive) && positive >= 1.5e308, "P is %g", positive);
      check_number(r->positive, 0, 3, "positive weight");
      check_number(r->negative, 0, 0.5, "negative weight");
    }
    running_free(r);
  }
}

#define REFUSED(word, change)                                                                           \
  do {                                                                                                  \
    tare_gradient_balance b = r->balance;                                                               \
    change;                                                                                             \
    cr_assert_eq(tare_gradient_balance_weigh(device->context, &b, NULL), TARE_STATUS_INVALID_ARGUMENT); \
    cr_assert_not_null(strstr(tare_error_text(device->context), word), "no '%s' in: %s", word,          \
                       tare_error_text(device->context));                                               \
  } while (0)

Test(gradient_balance, refusals) {
  FOR_EACH_DEVICE(device) {
    running *r = running_new(device, TARE_GRADIENT_RULE_EQLV2, 4);
    REFUSED("struct_size", b.struct_size = 8);
    REFUSED("classes is 0", b.classes = 0);
    REFUSED("rule is 2", b.rule = 2);
    REFUSED("reserved is 1", b.reserved = 1);
    REFUSED("exempt is 4", b.exempt = 4);
    REFUSED("exempt is -2", b.exempt = -2);
    REFUSED("steepness is -1", b.steepness = -1);
    REFUSED("midpoint is nan", b.midpoint = NAN);
    REFUSED("gain is inf", b.gain = INFINITY);
    REFUSED("gamma is 0", b.gamma = 0);
    REFUSED("scale is -1", b.scale = -1);
    REFUSED("state is", b.state = NULL);
    REFUSED("gammas is", b.gammas = r->gammas->memory);
    REFUSED("overlaps", b.negative_weights = b.positive_weights);
    REFUSED("overlaps", b.negative_weights = b.state);
    REFUSED("one of them", b.positive_weights = b.negative_weights = NULL);
    cr_assert_eq(tare_gradient_balance_collect(device->context, &r->balance, NULL, NULL), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert_eq(tare_gradient_balance_step(NULL, &r->balance, NULL), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert_eq(tare_gradient_balance_state_bytes(0), 0);
    cr_assert_eq(tare_gradient_balance_state_bytes(5), 8 * 21);
    running_free(r);
  }
}
