/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of the losses: defaults, checks and descriptions, all from the table in parameters.def. */
#include "parameters.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "backend.h"
#include "losses.h"
#include "losses/ghm.h"
#include "structs.h"

static const char *const density_names[] = {"unit-region", "exact", NULL};
static const char *const modulator_names[] = {"differentiated", "detached", NULL};
static const char *const positives_names[] = {"by-score", "by-label", NULL};
static const char *const smoothed_names[] = {"cross-entropy", "all", NULL};
static const char *const weighting_names[] = {"blended", "terms", NULL};
static const char *const variant_names[] = {"paper", "mmdet", NULL};

/** The type of a range. OFF_OR: in [low, high], or any negative number. */
enum range { RANGE_ANY, RANGE_FINITE, RANGE_CLOSED, RANGE_OPEN_LOW, RANGE_OPEN_HIGH, RANGE_OFF_OR };

typedef struct parameter {
  int32_t kind, type, range;
  int32_t offset; /* in tare_loss_spec */
  int32_t copy;   /* offset in tare_problem, or -1 */
  double low, high, default_value;
  const char *field, *name, *option, *limits, *help; /* limits: the range as text */
  const char *const *choices;
} parameter;

#define NUMBER .type = TARE_PARAMETER_TYPE_NUMBER
#define INTEGER .type = TARE_PARAMETER_TYPE_INTEGER
#define CHOICE(names) .type = TARE_PARAMETER_TYPE_CHOICE, .choices = names
#define PER_CLASS .type = TARE_PARAMETER_TYPE_PER_CLASS
#define STATE .type = TARE_PARAMETER_TYPE_STATE
#define ANY .range = RANGE_ANY
#define FINITE .range = RANGE_FINITE, .low = -HUGE_VAL, .high = HUGE_VAL, .limits = "finite"
#define BETWEEN(a, b, kind, text) .range = kind, .low = a, .high = b, .limits = text
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number) /* of a macro's value, not of its name */
#define CLOSED(a, b) BETWEEN(a, b, RANGE_CLOSED, "in [" TEXT(a) "," TEXT(b) "]")
#define OPEN_LOW(a, b) BETWEEN(a, b, RANGE_OPEN_LOW, "in (" TEXT(a) "," TEXT(b) "]")
#define OPEN_HIGH(a, b) BETWEEN(a, b, RANGE_OPEN_HIGH, "in [" TEXT(a) "," TEXT(b) ")")
#define OFF_OR(a, b) BETWEEN(a, b, RANGE_OFF_OR, "in [" TEXT(a) "," TEXT(b) "], or negative for off")
#define INTO(to) .copy = (int32_t)offsetof(tare_problem, to)
#define KEEP .copy = -1

static const parameter parameters[] = {
#define TARE_PARAMETERS_OF(KIND)
#define TARE_PARAMETER(KIND, at, called, optional, TYPE, RANGE, value, COPY, text) \
  {.kind = TARE_LOSS_##KIND,                                                       \
   .offset = (int32_t)offsetof(tare_loss_spec, at),                                \
   .field = #at,                                                                   \
   .name = #called,                                                                \
   .option = optional,                                                             \
   .default_value = value,                                                         \
   .help = text,                                                                   \
   TYPE,                                                                           \
   RANGE,                                                                          \
   COPY},
#include "losses/parameters.def"
#undef TARE_PARAMETER
#undef TARE_PARAMETERS_OF
};

enum { PARAMETERS = sizeof parameters / sizeof *parameters };

/** The value of a number or an integer; for a pointer, whether it is set. */
static double value_of(const parameter *p, const tare_loss_spec *loss) {
  const void *at = (const char *)loss + p->offset;
  double number;
  int32_t integer;
  const void *pointer;
  switch (p->type) {
    case TARE_PARAMETER_TYPE_NUMBER:
      memcpy(&number, at, sizeof number);
      return number;
    case TARE_PARAMETER_TYPE_INTEGER:
    case TARE_PARAMETER_TYPE_CHOICE:
      memcpy(&integer, at, sizeof integer);
      return integer;
    default:
      memcpy(&pointer, at, sizeof pointer);
      return pointer != NULL;
  }
}

static size_t size_of(const parameter *p) {
  if (p->type == TARE_PARAMETER_TYPE_NUMBER) return sizeof(double);
  return p->type == TARE_PARAMETER_TYPE_INTEGER || p->type == TARE_PARAMETER_TYPE_CHOICE ? sizeof(int32_t)
                                                                                         : sizeof(void *);
}

void tare_parameters_set_defaults(tare_loss_spec *loss) {
  /* Fields of the member that this loss does not use have the default of the losses that do: off, and GHM-R's mu. */
  if (loss->kind == TARE_LOSS_SOFTMAX_CE) loss->ce.alpha = -1;
  if (loss->kind == TARE_LOSS_GHM_C) loss->ghm.mu = 0.02;
  for (int i = 0; i < PARAMETERS; i++) {
    const parameter *p = &parameters[i];
    void *at = (char *)loss + p->offset;
    if (p->kind != loss->kind) continue;
    if (p->type == TARE_PARAMETER_TYPE_NUMBER)
      *(double *)at = p->default_value;
    else if (size_of(p) == sizeof(int32_t))
      *(int32_t *)at = (int32_t)p->default_value; /* pointers are NULL already */
  }
}

/** Whether the value is in its range; NaN is in no range. */
static int is_in_range(const parameter *p, double value) {
  switch ((enum range)p->range) {
    case RANGE_ANY:
      return 1;
    case RANGE_FINITE:
      return isfinite(value);
    case RANGE_CLOSED:
      return value >= p->low && value <= p->high;
    case RANGE_OPEN_LOW:
      return value > p->low && value <= p->high;
    case RANGE_OPEN_HIGH:
      return value >= p->low && value < p->high;
    case RANGE_OFF_OR:
      return value <= p->high; /* below low it is off */
  }
  return 0;
}

static tare_status check_pointer(const parameter *p, const tare_loss_spec *loss, tare_error *error) {
  const int alignment = p->type == TARE_PARAMETER_TYPE_STATE ? 8 : (int)sizeof(float);
  const void *pointer;
  memcpy(&pointer, (const char *)loss + p->offset, sizeof pointer);
  if ((uintptr_t)pointer % (uintptr_t)alignment == 0) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->%s is %p; it must be aligned to %d bytes", p->field,
                   pointer, alignment);
}

static tare_status check_value(const parameter *p, const tare_loss_spec *loss, tare_error *error) {
  if (p->type == TARE_PARAMETER_TYPE_PER_CLASS || p->type == TARE_PARAMETER_TYPE_STATE)
    return check_pointer(p, loss, error);
  const double value = value_of(p, loss);
  if (is_in_range(p, value)) return TARE_STATUS_OK;
  if (p->type == TARE_PARAMETER_TYPE_CHOICE)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->%s is %.0f; it must be 0 (%s) or 1 (%s)", p->field,
                     value, p->choices[0], p->choices[1]);
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->%s is %.10g; it must be %s", p->field, value, p->limits);
}

/** Whether the four bytes at `offset` belong to a parameter that any loss has in this member. */
static int is_in_parameter(const char *member, int32_t offset) {
  const size_t length = strlen(member);
  for (int i = 0; i < PARAMETERS; i++) {
    const parameter *p = &parameters[i];
    if (offset < p->offset || offset >= p->offset + (int32_t)size_of(p)) continue;
    if (!strncmp(p->field, member, length) && p->field[length] == '.') return 1;
  }
  return 0;
}

tare_status tare_check_reserved(const tare_loss_spec *loss, const tare_listed_loss *listed, tare_error *error) {
  if (loss->reserved)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->reserved is %d; it must be 0", loss->reserved);
  const int32_t first = (int32_t)offsetof(tare_loss_spec, ce), size = (int32_t)sizeof *loss;
  for (int32_t at = first; at < size; at += (int32_t)sizeof(int32_t)) {
    int32_t word;
    memcpy(&word, (const char *)loss + at, sizeof word);
    if (!word) continue;
    if (at >= (int32_t)listed->end)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "loss->reserved_words[%d] is set; %s has no parameter there: start with tare_loss_spec_init",
                       (at - first) / 8, listed->name);
    if (!is_in_parameter(listed->member, at))
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "loss->%s.reserved is %d; it must be 0", listed->member,
                       word);
  }
  return TARE_STATUS_OK;
}

int tare_is_parameter_at(const char *member, uint64_t offset) {
  const size_t length = strlen(member);
  for (int i = 0; i < PARAMETERS; i++) {
    const parameter *p = &parameters[i];
    if ((uint64_t)p->offset == offset && !strncmp(p->field, member, length) && p->field[length] == '.') return 1;
  }
  return 0;
}

tare_status tare_parameters_read(tare_problem *problem, tare_error *error) {
  for (int i = 0; i < PARAMETERS; i++) {
    const parameter *p = &parameters[i];
    if (p->kind != problem->loss.kind) continue;
    const tare_status status = check_value(p, &problem->loss, error);
    if (status) return status;
    if (p->copy >= 0) memcpy((char *)problem + p->copy, (const char *)&problem->loss + p->offset, size_of(p));
  }
  return TARE_STATUS_OK;
}

/* ---- Descriptions, for bindings ---------------------------------------------------------------------------------- */

static int32_t count_parameters(int32_t kind) {
  int32_t count = 0;
  for (int i = 0; i < PARAMETERS; i++) count += parameters[i].kind == kind;
  return count;
}

static int has_state(int32_t kind) {
  for (int i = 0; i < PARAMETERS; i++)
    if (parameters[i].kind == kind && parameters[i].type == TARE_PARAMETER_TYPE_STATE) return 1;
  return 0;
}

tare_status tare_loss_describe(int32_t kind, tare_loss_description *description) {
  const tare_listed_loss *listed = tare_find_loss(kind);
  if (!listed) return tare_fail_unknown_loss(tare_thread_error(), "", kind);
  const int32_t takes = listed->takes;
  const tare_loss_description ours = {.name = listed->name,
                                      .kind = kind,
                                      .family = listed->family,
                                      .parameters = count_parameters(kind),
                                      .has_state = has_state(kind),
                                      .takes_targets = (takes & TARE_TAKES_TARGETS) != 0,
                                      .takes_class_weights = (takes & TARE_TAKES_CLASS_WEIGHTS) != 0,
                                      .takes_element_weights = (takes & TARE_TAKES_ELEMENT_WEIGHTS) != 0,
                                      .takes_positive_weights = (takes & TARE_TAKES_POSITIVE_WEIGHTS) != 0,
                                      .takes_normalizer = (takes & TARE_TAKES_NORMALIZER) != 0,
                                      .gives_element_loss = (takes & TARE_TAKES_ELEMENT_LOSS) != 0,
                                      .takes_scores = (takes & TARE_TAKES_SCORES) != 0,
                                      .takes_negative_weights = (takes & TARE_TAKES_NEGATIVE_WEIGHTS) != 0,
                                      .takes_bins = takes & TARE_TAKES_BIN_TARGET    ? 1
                                                    : takes & TARE_TAKES_BIN_WEIGHTS ? 2
                                                                                     : 0};
  return tare_write_struct(description, &ours, &tare_loss_description_layout, tare_thread_error());
}

static tare_parameter_description describe(const parameter *p) {
  const int32_t range = p->range;
  return (tare_parameter_description){.name = p->name,
                                      .option = p->option,
                                      .field = p->field,
                                      .help = p->help,
                                      .limits = p->limits ? p->limits : "",
                                      .choices = p->choices,
                                      .type = p->type,
                                      .offset = p->offset,
                                      .low = range == RANGE_OFF_OR ? -HUGE_VAL : p->low,
                                      .high = p->high,
                                      .low_is_excluded = range == RANGE_OPEN_LOW,
                                      .high_is_excluded = range == RANGE_OPEN_HIGH,
                                      .negative_is_off = range == RANGE_OFF_OR,
                                      .default_value = p->default_value};
}

tare_status tare_loss_parameter(int32_t kind, int32_t index, tare_parameter_description *description) {
  int32_t left = index;
  for (int i = 0; i < PARAMETERS && index >= 0; i++) {
    if (parameters[i].kind != kind || left-- > 0) continue;
    const tare_parameter_description ours = describe(&parameters[i]);
    return tare_write_struct(description, &ours, &tare_parameter_description_layout, tare_thread_error());
  }
  return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "index is %d; loss %d has parameters 0 to %d",
                   index, kind, count_parameters(kind) - 1);
}
