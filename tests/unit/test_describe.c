/* SPDX-License-Identifier: Apache-2.0 */
/* What the library tells of its losses is what it does: defaults, ranges and what a loss takes. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "tare.h"

static tare_loss_description loss_of(int32_t kind) {
  tare_loss_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_loss_describe(kind, &d), TARE_STATUS_OK);
  return d;
}

static tare_parameter_description parameter_of(int32_t kind, int32_t index) {
  tare_parameter_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_loss_parameter(kind, index, &d), TARE_STATUS_OK);
  return d;
}

static void *place_of(tare_loss_spec *loss, const tare_parameter_description *p) { return (char *)loss + p->offset; }

/** The value as a number; of a pointer, 0 if it is NULL. */
static double value_of(tare_loss_spec *loss, const tare_parameter_description *p) {
  if (p->type == TARE_PARAMETER_TYPE_NUMBER) return *(double *)place_of(loss, p);
  if (p->type == TARE_PARAMETER_TYPE_INTEGER || p->type == TARE_PARAMETER_TYPE_CHOICE)
    return *(int32_t *)place_of(loss, p);
  return *(void **)place_of(loss, p) != NULL;
}

static void set_value(tare_loss_spec *loss, const tare_parameter_description *p, double value) {
  if (p->type == TARE_PARAMETER_TYPE_NUMBER)
    *(double *)place_of(loss, p) = value;
  else
    *(int32_t *)place_of(loss, p) = (int32_t)value;
}

/** One call on one row of one class. */
static tare_status evaluate(tare_context *context, const tare_loss_spec *loss) {
  static const float logit = 0.5f, target = 0;
  static const int32_t label = 0;
  float result;
  tare_level level;
  tare_batch batch;
  tare_output output;
  tare_level_init_rows(&level, 1, 1);
  level.logits = &logit;
  level.labels = &label;
  if (loss->kind == TARE_LOSS_GHM_R) level.targets = &target;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = 1;
  tare_output_init(&output);
  output.loss = &result;
  return tare_evaluate(context, loss, &batch, &output, NULL);
}

static tare_context *open_context(void) {
  tare_context *context;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  cr_assert_eq(tare_context_create(&context, &options), TARE_STATUS_OK);
  return context;
}

Test(describe, every_loss_has_a_description) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    const int32_t kind = tare_loss_kind_at(i);
    const tare_loss_description d = loss_of(kind);
    cr_assert_str_eq(d.name, tare_loss_name(kind));
    cr_assert_eq(d.kind, kind);
    cr_assert_eq(d.has_state, strncmp(d.name, "ghm", 3) == 0);
    cr_assert_eq(d.family == TARE_LOSS_FAMILY_SOFTMAX, strncmp(d.name, "softmax", 7) == 0);
    cr_assert_eq(d.takes_element_weights, d.takes_positive_weights);
  }
}

Test(describe, defaults_are_what_init_sets) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    const int32_t kind = tare_loss_kind_at(i);
    tare_loss_spec loss;
    tare_loss_spec_init(&loss, (tare_loss_kind)kind);
    for (int32_t k = 0; k < loss_of(kind).parameters; k++) {
      const tare_parameter_description p = parameter_of(kind, k);
      cr_expect_eq(value_of(&loss, &p), p.default_value, "%s of %s", p.name, tare_loss_name(kind));
      cr_expect(p.help[0] != 0, "%s has no help", p.name);
    }
  }
}

/** The value is refused by name, or taken. (TARE_STATUS_UNSUPPORTED is about several values together.) */
static void expect_taken(tare_context *context, const tare_loss_spec *loss, const tare_parameter_description *p,
                         int taken) {
  const tare_status status = evaluate(context, loss);
  if (taken) {
    cr_expect_neq(status, TARE_STATUS_INVALID_LABEL);
    cr_expect(status != TARE_STATUS_INVALID_ARGUMENT || strstr(tare_error_text(context), "state is NULL"), "%s: %s",
              p->name, tare_error_text(context));
    return;
  }
  cr_expect_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s", p->name);
  cr_expect(strstr(tare_error_text(context), p->name) != NULL, "%s: %s", p->name, tare_error_text(context));
}

static void try_value(tare_context *context, int32_t kind, const tare_parameter_description *p, double value,
                      int taken) {
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  set_value(&loss, p, value);
  expect_taken(context, &loss, p, taken);
}

static void try_ends(tare_context *context, int32_t kind, const tare_parameter_description *p) {
  const int whole = p->type != TARE_PARAMETER_TYPE_NUMBER;
  if (p->negative_is_off) {
    try_value(context, kind, p, -1, 1);
    try_value(context, kind, p, 0, 1);
  } else if (p->low > -DBL_MAX) {
    try_value(context, kind, p, p->low, !p->low_is_excluded);
    try_value(context, kind, p, whole ? p->low - 1 : nextafter(p->low, -HUGE_VAL), 0);
  }
  if (p->high < DBL_MAX) {
    try_value(context, kind, p, p->high, !p->high_is_excluded);
    try_value(context, kind, p, whole ? p->high + 1 : nextafter(p->high, HUGE_VAL), 0);
  }
  if (whole) return;
  try_value(context, kind, p, (double)NAN, 0);
  try_value(context, kind, p, HUGE_VAL, 0);
}

Test(describe, ranges_are_what_is_checked) {
  tare_context *context = open_context();
  int tried = 0;
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    const int32_t kind = tare_loss_kind_at(i);
    for (int32_t k = 0; k < loss_of(kind).parameters; k++) {
      const tare_parameter_description p = parameter_of(kind, k);
      if (p.type == TARE_PARAMETER_TYPE_PER_CLASS || p.type == TARE_PARAMETER_TYPE_STATE) continue;
      try_ends(context, kind, &p);
      tried++;
    }
  }
  cr_assert_gt(tried, 15);
  tare_context_destroy(context);
}

/** An option means the same for every loss that has it; a field is where the loss's own member is. */
Test(describe, options_and_fields) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    const int32_t kind = tare_loss_kind_at(i);
    for (int32_t k = 0; k < loss_of(kind).parameters; k++) {
      const tare_parameter_description p = parameter_of(kind, k);
      cr_expect_str_eq(strchr(p.field, '.') + 1, p.name);
      for (int32_t j = 0; j < tare_loss_count() && p.option[0]; j++) {
        const int32_t other = tare_loss_kind_at(j);
        for (int32_t n = 0; n < loss_of(other).parameters; n++) {
          const tare_parameter_description q = parameter_of(other, n);
          if (strcmp(p.option, q.option) != 0) continue;
          cr_expect_str_eq(p.name, q.name);
          cr_expect_eq(p.type, q.type);
        }
      }
    }
  }
}

Test(describe, choices_are_named) {
  const tare_parameter_description density = parameter_of(TARE_LOSS_GHM_C, 1);
  cr_assert_str_eq(density.name, "density");
  cr_assert_str_eq(density.choices[TARE_GHM_DENSITY_UNIT_REGION], "unit-region");
  cr_assert_str_eq(density.choices[TARE_GHM_DENSITY_EXACT], "exact");
  cr_assert_null(density.choices[2]);
  const tare_parameter_description variant = parameter_of(TARE_LOSS_GHM_C, 2);
  cr_assert_str_eq(variant.choices[TARE_GHM_VARIANT_MMDET], "mmdet");
}

Test(describe, a_longer_struct_is_zeroed_behind_ours) {
  struct {
    tare_loss_description known;
    unsigned char later[24];
  } d;
  memset(&d, 0xa5, sizeof d);
  d.known.struct_size = sizeof d;
  cr_assert_eq(tare_loss_describe(TARE_LOSS_SOFTMAX_CE, &d.known), TARE_STATUS_OK);
  for (size_t i = 0; i < sizeof d.later; i++) cr_assert_eq(d.later[i], 0);
  cr_assert_eq(d.known.struct_size, sizeof d);
}

Test(describe, a_shorter_struct_is_not_overrun) {
  tare_loss_description d;
  memset(&d, 0xa5, sizeof d);
  d.struct_size = offsetof(tare_loss_description, parameters);
  cr_assert_eq(tare_loss_describe(TARE_LOSS_SOFTMAX_CE, &d), TARE_STATUS_OK);
  cr_assert_eq(d.kind, TARE_LOSS_SOFTMAX_CE);
  cr_assert_eq((uint32_t)d.parameters, 0xa5a5a5a5u);
}

Test(describe, errors) {
  tare_loss_description d = {.struct_size = sizeof d};
  tare_parameter_description p = {.struct_size = sizeof p};
  cr_assert_eq(tare_loss_describe(999, &d), TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_not_null(strstr(tare_error_text(NULL), "kind is 999"));
  cr_assert_eq(tare_loss_describe(TARE_LOSS_GHM_C, NULL), TARE_STATUS_INVALID_ARGUMENT);
  d.struct_size = 0;
  cr_assert_eq(tare_loss_describe(TARE_LOSS_GHM_C, &d), TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_not_null(strstr(tare_error_text(NULL), "struct_size is 0"));
  const int32_t wrong[] = {-1, 1000, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < 4; i++) {
    cr_assert_eq(tare_loss_parameter(TARE_LOSS_GHM_C, wrong[i], &p), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(tare_error_text(NULL), "index is"));
  }
  cr_assert_eq(tare_loss_parameter(TARE_LOSS_SOFTMAX_CE, 2, &p), TARE_STATUS_INVALID_ARGUMENT);
}
