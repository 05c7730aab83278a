/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a whole call: the output, and combinations of loss, batch and output that are not supported. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/backend.h"
#include "core/class_sums.h"
#include "core/flags.h"
#include "core/levels.h"
#include "core/norms.h"
#include "core/structs.h"
#include "normalizer.h"

static tare_status check_output(const tare_output *output, tare_error *error) {
  if (output->loss_dtype != TARE_DTYPE_F32 && output->loss_dtype != TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->loss_dtype is %d; it must be TARE_DTYPE_F32 (0) or TARE_DTYPE_F64 (3)",
                     output->loss_dtype);
  if ((uintptr_t)output->loss % (uintptr_t)tare_dtype_bytes(output->loss_dtype))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->loss is %p; it must be aligned to %d bytes",
                     output->loss, (int)tare_dtype_bytes(output->loss_dtype));
  if (!isfinite((float)output->gradient_scale))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->gradient_scale is %g; it must be within +-3.4e38, the range of f32",
                     output->gradient_scale);
  if ((uintptr_t)output->gradient_scale_pointer % 4)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->gradient_scale_pointer is %p; it must be aligned to 4 bytes",
                     (const void *)output->gradient_scale_pointer);
  if ((uintptr_t)output->counts % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->counts is %p; it must be aligned to 8 bytes",
                     (void *)output->counts);
  return tare_check_normalizer(output, error);
}

static int any_level_has(const tare_problem *problem, int name) {
  for (int i = 0; i < problem->level_count; i++)
    if (problem->view[i].rows && problem->view[i].array[name].data) return 1;
  return 0;
}

static tare_status refuse(const tare_problem *problem, const char *what, const char *why, tare_error *error) {
  return tare_fail(error, TARE_STATUS_UNSUPPORTED, "%s with %s%s: %s", what, tare_loss_name(problem->loss.kind),
                   problem->soft && problem->family != TARE_LOSS_FAMILY_REGRESSION ? " and dense targets" : "", why);
}

/** Dense targets that a loss does not take by their values or their type. */
static tare_status check_kind_of_targets(const tare_problem *problem, tare_error *error) {
  const int32_t dtype = problem->batch.target_dtype;
  if (problem->label_smoothing > 0.0)
    return refuse(problem, "batch->levels[].targets and loss->label_smoothing above 0",
                  "label smoothing belongs to labels; smooth the targets yourself, or give labels", error);
  if (problem->z_loss > 0.0)
    return refuse(problem, "batch->levels[].targets and loss->z_loss above 0",
                  "z-loss is computed with labels alone; leave z_loss 0, or give labels", error);
  if (problem->loss.kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL && (dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16))
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "batch->target_dtype is %d with sigmoid-heatmap-focal; in 16 bits a target beside a peak rounds to "
        "1, and so becomes a peak: use TARE_DTYPE_F32 (0)",
        dtype);
  return TARE_STATUS_OK;
}

static tare_status check_soft(const tare_problem *problem, tare_error *error) {
  if (!(problem->takes & TARE_TAKES_TARGETS))
    return refuse(problem, "batch->levels[].targets", "this loss needs labels; softmax-ce takes dense targets", error);
  if (problem->family == TARE_LOSS_FAMILY_REGRESSION) return TARE_STATUS_OK;
  if (problem->positives_are_labels)
    return refuse(problem, "loss->varifocal.positives TARE_POSITIVES_BY_LABEL",
                  "a dense target has no label; use TARE_POSITIVES_BY_SCORE, where a target above 0 is a positive",
                  error);
  if (problem->batch.class_weights || problem->batch.background_weight != 1.0)
    return refuse(problem, "batch->class_weights or background_weight",
                  "a row of dense targets has no class; use row_weights or element_weights", error);
  return check_kind_of_targets(problem, error);
}

/** The names of the losses that take scores. */
static void list_takers_of_scores(char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int32_t i = 0; i < tare_loss_count() && used < size; i++) {
    tare_loss_description loss = {.struct_size = sizeof loss};
    const tare_status status = tare_loss_describe(tare_loss_kind_at(i), &loss);
    if (status || !(loss.takes_scores || loss.takes_bins)) continue;
    used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", loss.name);
  }
}

static tare_status check_scores(const tare_problem *problem, tare_error *error) {
  char takers[320], why[384];
  if (!problem->has_scores) return TARE_STATUS_OK;
  if (!(problem->takes & TARE_TAKES_SCORES) && !tare_bin_numbers(problem)) {
    list_takers_of_scores(takers, sizeof takers);
    snprintf(why, sizeof why, "this loss takes no scores; these do: %s", takers);
    return refuse(problem, "batch->levels[].scores", why, error);
  }
  if (problem->label_smoothing > 0.0)
    return refuse(problem, "batch->levels[].scores and loss->label_smoothing above 0",
                  "a score is the label's target already; leave one of them out", error);
  if (problem->soft)
    return refuse(problem, "batch->levels[].scores", "a score belongs to a label; leave scores or targets NULL", error);
  if (problem->batch.score_dtype == TARE_DTYPE_F64 && problem->batch.dtype != TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->score_dtype is TARE_DTYPE_F64 (3) with batch->dtype %d; f64 scores need f64 logits: "
                     "use TARE_DTYPE_F32 (0)",
                     problem->batch.dtype);
  if (tare_labels_are_flags(problem) && (problem->batch.class_weights || problem->batch.background_weight != 1.0))
    return refuse(problem, "batch->class_weights or background_weight, and scores,",
                  "a row with a target between bins has no class; use row_weights", error);
  return TARE_STATUS_OK;
}

/** The reason why a loss does not take an input, by what it would need. */
static const char *reason_of(const tare_problem *problem, int needs) {
  if (needs == TARE_TAKES_NEGATIVE_WEIGHTS) return "sigmoid-ce and sigmoid-focal take them; leave them NULL";
  if (tare_is_ghm(problem)) return "a GHM loss takes no weights but row_weights, which select rows";
  return "a softmax loss has one term per row; use row_weights, class_weights and row_loss";
}

static tare_status check_taken(const tare_problem *problem, tare_error *error) {
  const tare_batch *batch = &problem->batch;
  const struct {
    int given, needs;
    const char *name;
  } arguments[] = {
      {problem->output.normalizer != TARE_NORMALIZER_SUM, TARE_TAKES_NORMALIZER,
       "output->normalizer other than TARE_NORMALIZER_SUM"},
      {batch->class_weights || batch->background_weight != 1.0, TARE_TAKES_CLASS_WEIGHTS,
       "batch->class_weights or background_weight"},
      {batch->positive_weights != NULL, TARE_TAKES_POSITIVE_WEIGHTS, "batch->positive_weights"},
      {any_level_has(problem, TARE_ARRAY_ELEMENT_WEIGHTS), TARE_TAKES_ELEMENT_WEIGHTS,
       "batch->levels[].element_weights"},
      {batch->negative_weights != NULL, TARE_TAKES_NEGATIVE_WEIGHTS, "batch->negative_weights"},
      {batch->background_negative_weights != NULL, TARE_TAKES_NEGATIVE_WEIGHTS, "batch->background_negative_weights"},
      {any_level_has(problem, TARE_ARRAY_ELEMENT_LOSS), TARE_TAKES_ELEMENT_LOSS, "batch->levels[].element_loss"},
  };
  for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
    if (arguments[i].given && !(problem->takes & arguments[i].needs))
      return refuse(problem, arguments[i].name, reason_of(problem, arguments[i].needs), error);
  return TARE_STATUS_OK;
}

/** `unseen`: the logits are a fused head's. */
static tare_status check_selection(const tare_problem *problem, int unseen, tare_error *error) {
  const char *const name = problem->batch.selection == TARE_SELECTION_HARD_ROWS
                               ? "batch->selection of hard rows"
                               : "batch->selection other than TARE_SELECTION_ALL";
  if (problem->batch.selection == TARE_SELECTION_ALL) return TARE_STATUS_OK;
  if (problem->has_scores)
    return refuse(problem, name, "rows are selected by labels without scores; leave scores NULL", error);
  if (tare_is_ghm(problem))
    return refuse(problem, name, "its density needs all elements; use a focal or cross-entropy loss", error);
  if (problem->soft) return refuse(problem, name, "a dense row is neither positive nor negative; use labels", error);
  if (unseen) return refuse(problem, name, "a fused head keeps no row losses; form the logits", error);
  if (problem->batch.selection == TARE_SELECTION_HARD_NEGATIVES && problem->family == TARE_LOSS_FAMILY_SOFTMAX &&
      tare_background_class(problem) < 0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->background_label is %lld with TARE_SELECTION_HARD_NEGATIVES, first_label %lld and %lld "
                     "classes; in a softmax loss it must be a class: other background rows have no loss to rank",
                     (long long)problem->batch.background_label, (long long)problem->batch.first_label,
                     (long long)problem->batch.classes);
  return TARE_STATUS_OK;
}

static tare_status check_columns(const tare_problem *problem, tare_error *error) {
  if (problem->batch.background_negative_weights && problem->soft)
    return refuse(problem, "batch->background_negative_weights",
                  "a row of dense targets is neither background nor of a class; use negative_weights", error);
  if (problem->batch.background_negative_weights && problem->label_smoothing > 0.0)
    return refuse(problem, "batch->background_negative_weights and loss->label_smoothing above 0",
                  "a smoothed target of a background row has no weight of its own; leave one of them out", error);
  if (!tare_has_columns(problem) || problem->label_smoothing == 0.0) return TARE_STATUS_OK;
  if (problem->weighs_terms) return TARE_STATUS_OK; /* each term has its weight */
  return refuse(problem,
                problem->gamma_per_class ? "loss->focal.gamma_per_class and label_smoothing above 0"
                                         : "batch->negative_weights and loss->label_smoothing above 0",
                problem->gamma_per_class
                    ? "a smoothed target has the exponent of its label; leave one of them out"
                    : "a smoothed target has the weight of its label; leave one of them out, or let sigmoid-ce weigh "
                      "terms (TARE_WEIGHTING_TERMS)",
                error);
}

/** At targets of 0 and 1 both meanings of positive weights agree. */
static int weighs_terms(const tare_problem *problem) {
  const tare_batch *batch = &problem->batch;
  return problem->weighting == TARE_WEIGHTING_TERMS && (batch->positive_weights || batch->negative_weights) &&
         (problem->soft || problem->has_scores || problem->label_smoothing > 0.0);
}

static tare_status check_class_mask(const tare_problem *problem, tare_error *error) {
  if (!problem->batch.class_mask || problem->family == TARE_LOSS_FAMILY_SIGMOID) return TARE_STATUS_OK;
  return refuse(problem, "batch->class_mask",
                problem->family == TARE_LOSS_FAMILY_SOFTMAX
                    ? "the classes of a softmax row depend on each other; give the logits of classes that are left out "
                      "-inf, or use a sigmoid loss"
                    : "the columns of a regression are no classes; use row_weights",
                error);
}

static tare_status check_combinations(tare_problem *problem, int needs, tare_error *error) {
  problem->weighs_terms = weighs_terms(problem);
  problem->weighs_apart =
      (problem->weighs_terms && problem->label_smoothing > 0.0) || problem->batch.background_negative_weights;
  tare_status status = problem->soft ? check_soft(problem, error) : TARE_STATUS_OK;
  if (!status) status = check_selection(problem, needs & TARE_NEED_LINEAR, error);
  if (!status) status = check_scores(problem, error);
  if (!status) status = tare_check_normalizer_of(problem, error);
  if (!status) status = tare_check_levels(problem, needs & TARE_NEED_LINEAR, error);
  if (!status) status = tare_check_class_sums(problem, error);
  if (!status) status = tare_check_norms(problem, needs & TARE_NEED_LINEAR, error);
  if (!status) status = tare_check_flags(problem, needs & TARE_NEED_LINEAR, error);
  if (!status) status = check_taken(problem, error);
  if (!status) status = check_class_mask(problem, error);
  return status ? status : check_columns(problem, error);
}

void tare_target_range(int32_t dtype, double *least, double *most) {
  *least = dtype == TARE_DTYPE_F64 ? -1e-3 : (double)-1e-3f;
  *most = dtype == TARE_DTYPE_F64 ? 1.001 : (double)1.001f;
  if (dtype == TARE_DTYPE_F16) *least = -1311 * 0x1p-17, *most = 1.01; /* -0.01 as f16 has it */
  if (dtype == TARE_DTYPE_BF16) *least = -164 * 0x1p-14, *most = 1.01;
}

static void set_targets(tare_problem *problem) {
  const int is_double = problem->batch.dtype == TARE_DTYPE_F64;
  problem->checks_targets = problem->soft && problem->family != TARE_LOSS_FAMILY_REGRESSION;
  tare_target_range(problem->batch.target_dtype, &problem->target_least, &problem->target_most);
  tare_target_range(problem->batch.score_dtype, &problem->score_least, &problem->score_most);
  if (tare_bin_numbers(problem)) {
    problem->score_most = tare_bin_numbers(problem) == 2 ? 1e30 : is_double ? DBL_MAX : (double)FLT_MAX;
    problem->score_least = tare_bin_numbers(problem) == 2 ? 0 : -problem->score_most;
  }
  if (problem->family == TARE_LOSS_FAMILY_SOFTMAX) {
    problem->target_least = 0;
    problem->target_most = is_double ? DBL_MAX : (double)FLT_MAX;
  }
}

tare_status tare_problem_build(tare_problem *problem, const tare_loss_spec *loss, const tare_batch *batch,
                               const tare_output *output, int needs, tare_error *error) {
  memset(problem, 0, offsetof(tare_problem, view)); /* add_level clears those that there are */
  tare_output_init(&problem->output);
  tare_status status = TARE_STATUS_OK;
  if (needs & TARE_NEED_LOGITS) status = tare_problem_set_loss(problem, loss, error);
  if (!status) status = tare_problem_set_batch(problem, batch, needs, error);
  if (!status) set_targets(problem);
  if (!status && output) {
    status = tare_read_struct(&problem->output, output, &tare_output_layout, error);
    if (!status) status = check_output(&problem->output, error);
  }
  if (!status && (needs & TARE_NEED_LOGITS)) status = check_combinations(problem, needs, error);
  return status;
}
