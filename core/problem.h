/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checked call, in the form that the backends read. Defaults are filled in. Every level is a *view*: its row axes are
 * reordered and merged, so that loops run along the last one.
 */
#ifndef TARE_CORE_PROBLEM_H
#define TARE_CORE_PROBLEM_H

#include <math.h>

#include "losses/shapes.h"
#include "tare.h"

/** How often the logits are read: see losses/losses.def. */
enum tare_passes { TARE_PASSES_ONE, TARE_PASSES_DENSITY };

/** Inputs and outputs that not every loss has: see losses/losses.def. */
enum tare_takes {
  TARE_TAKES_TARGETS = 1,       /* dense targets */
  TARE_TAKES_CLASS_WEIGHTS = 2, /* and a background weight */
  TARE_TAKES_NORMALIZER = 4,    /* any; without it TARE_NORMALIZER_SUM alone */
  TARE_TAKES_ELEMENT_WEIGHTS = 8,
  TARE_TAKES_POSITIVE_WEIGHTS = 16,
  TARE_TAKES_ELEMENT_LOSS = 32,
  TARE_TAKES_EVERYTHING = 63, /* all of the above; scores are listed separately */
  TARE_TAKES_SCORES = 64,
  TARE_TAKES_NEGATIVE_WEIGHTS = 128,
  TARE_TAKES_BIN_TARGET = 256, /* a score is the row's target, a number between two bins */
  TARE_TAKES_BIN_WEIGHTS = 512 /* scores are the weights of the label's bin and of the next one */
};

/** The arrays of a level. ROW_INDEX has no storage: its strides map a position to its row number. */
enum tare_array_name {
  TARE_ARRAY_LOGITS,
  TARE_ARRAY_GRADIENT,
  TARE_ARRAY_LABELS,
  TARE_ARRAY_TARGETS,
  TARE_ARRAY_SCORES,
  TARE_ARRAY_ROW_WEIGHTS,
  TARE_ARRAY_ELEMENT_WEIGHTS,
  TARE_ARRAY_ROW_LOSS,
  TARE_ARRAY_ELEMENT_LOSS,
  TARE_ARRAY_CLASS_MASK, /* bytes; of a row the mask of its image */
  TARE_ARRAY_ROW_INDEX,
  TARE_ARRAY_COUNT
};

enum { TARE_AXES = 4 };

typedef struct tare_array {
  void *data; /* NULL: absent. Inputs are never written through it */
  int64_t stride[TARE_AXES];
  int64_t cls;
} tare_array;

/** Rows are dim[0] x dim[1] x dim[2] x dim[3]; consecutive logits are nearest along the last axis. */
typedef struct tare_view {
  int64_t dim[TARE_AXES];
  int64_t rows;
  int64_t first_row; /* rows of the levels before this one */
  tare_array array[TARE_ARRAY_COUNT];
} tare_view;

/** What a level has of its own: where its loss goes, a weight, and a divisor (0 and NULL: the normalizer's). */
typedef struct tare_level_scalars {
  void *loss;
  double weight, divisor;
  const float *divisor_pointer;
} tare_level_scalars;

typedef struct tare_problem {
  tare_loss_spec loss;
  int32_t family;        /* a tare_loss_family */
  int32_t passes;        /* a tare_passes */
  int32_t takes;         /* bits of tare_takes */
  int32_t power;         /* a tare_power */
  int32_t alpha_is_part; /* alpha is not a factor of the whole loss */
  double alpha;          /* negative: off */
  double alpha_of_0;     /* alpha_t of a target of 0: 1-alpha, or of a smoothed 0, where 1-alpha would cancel */
  const float *alpha_per_class;
  const float *gamma_per_class; /* sigmoid focal: instead of gamma; NULL: gamma is that of all */
  const float *class_offset;    /* softmax: added to the logits of each class; NULL: nothing is */
  const float *class_margins;   /* LDAM: taken from the logit of a label; NULL: nothing is */
  double row_scale;             /* LDAM: of all logits; tare_scale_of_rows rounds it */
  const float *log_counts;      /* Seesaw: of the samples of each class; NULL: no mitigation */
  double mitigation, compensation, least_probability;
  int32_t labels_apart;          /* a label's element has a formula of its own, not the mirror of a negative's */
  int32_t alpha_of_negatives;    /* alpha is a factor of the negatives alone, as it is */
  int32_t modulator_is_detached; /* q^gamma is a constant of the gradient */
  int32_t positives_are_labels;  /* varifocal: a label with score 0 is not a negative */
  double gamma, poly_epsilon;
  double p_exponent;    /* IoU-aware: of p in a label's target */
  int32_t shape;        /* a tare_shape */
  int32_t smooths_all;  /* label smoothing: alpha and the modulator are those of the smoothed target */
  int32_t weighting;    /* a tare_weighting */
  int32_t weighs_terms; /* the terms of targets 1 and 0 have weights of their own, and targets lie between */
  int32_t weighs_apart; /* negatives of labels have weights that are no product of a row's and a class's */
  double label_smoothing;
  double z_loss;                                       /* softmax: factor of LSE^2 */
  double label_gamma;                                  /* asymmetric: gamma of labels; heatmap: beta */
  double shift, margin, margin_logit, margin_logit_lo; /* its logit in two parts; 0 without a margin */
  double delta;                                        /* distribution focal: of the largest target to the last bin */
  double threshold, threshold_logit, log_threshold;    /* reduced: of p, its logit, log p */
  float threshold_logit_f32;                           /* the first float that reaches it */

  tare_batch batch;
  tare_output output;
  int32_t level_count;
  int32_t soft; /* dense targets */
  int32_t
      checks_targets; /* and they must lie in [target_least, target_most], as the logits' computing type holds them */
  double target_least, target_most;
  int32_t has_scores; /* of any level; they must lie in [score_least, score_most] */
  double score_least, score_most;
  int64_t rows;
  const uint64_t *all_positives; /* [level_count]; a selection has counted them on a GPU; NULL: the labels say it */
  int32_t has_level_scalars;     /* of any level; or the normalizer's scope is the level */
  tare_level_scalars scalars[TARE_MAX_LEVELS];
  tare_view view[TARE_MAX_LEVELS];
} tare_problem;

/** Whether the logits of a softmax row are adjusted by its label, and by what their softmax is. */
static inline int tare_is_seesaw(const tare_problem *problem) { return problem->loss.kind == TARE_LOSS_SOFTMAX_SEESAW; }

/** Whether the logits of a softmax row are multiplied, and the label's has a margin. */
static inline int tare_is_ldam(const tare_problem *problem) { return problem->loss.kind == TARE_LOSS_SOFTMAX_LDAM; }

/** Whether the loss excludes a class: by an offset of -inf, or a margin of +inf. On a GPU the host cannot ask. */
static inline int tare_is_excluded(const tare_problem *problem, int64_t cls) {
  if (problem->class_offset) return problem->class_offset[cls] == -INFINITY;
  return problem->class_margins && problem->class_margins[cls] == INFINITY;
}

/** What they are multiplied by, as the logits' computing type holds it. */
static inline double tare_scale_of_rows(const tare_problem *problem) {
  return problem->batch.dtype == TARE_DTYPE_F64 ? problem->row_scale : (double)(float)problem->row_scale;
}

/** Whether the targets of softmax rows are smoothed. Of one class nothing can be. */
static inline int tare_smooths_rows(const tare_problem *problem) {
  return problem->family == TARE_LOSS_FAMILY_SOFTMAX && problem->label_smoothing > 0.0 && problem->batch.classes > 1;
}

/** Whether the gradient of softmax rows is more than their derivative by the margin: it has terms of its own then. */
static inline int tare_has_row_terms(const tare_problem *problem) {
  return tare_smooths_rows(problem) || problem->z_loss > 0.0;
}

/** The smoothed target of a class that is not the label, in a softmax loss. */
static inline double tare_smoothed_share(const tare_problem *problem) {
  return tare_smooths_rows(problem) ? problem->label_smoothing / (double)problem->batch.classes : 0.0;
}

/** The distance of the label's smoothed target to 1. */
static inline double tare_smoothed_rest(const tare_problem *problem) {
  if (problem->family != TARE_LOSS_FAMILY_SOFTMAX) return problem->label_smoothing / 2;
  return tare_smoothed_share(problem) * (double)(problem->batch.classes - 1);
}

/** The tolerance around [0,1] for dense targets: rounding to their type may move an IoU of 1 outside. */
void tare_target_range(int32_t dtype, double *least, double *most);

/** How many scores a row has, where they are targets between bins; else 0. */
static inline int tare_bin_numbers(const tare_problem *problem) {
  return problem->takes & TARE_TAKES_BIN_TARGET ? 1 : problem->takes & TARE_TAKES_BIN_WEIGHTS ? 2 : 0;
}

/** Whether rows have their targets between bins. */
static inline int tare_has_bins(const tare_problem *problem) {
  return problem->has_scores && tare_bin_numbers(problem) > 0;
}

/** The largest target between bins. */
static inline double tare_last_target(const tare_problem *problem) {
  const double last = (double)(problem->batch.classes - 1) - problem->delta;
  return last > 0.0 ? last : 0.0;
}

/** Whether labels name no class, and say which rows count. */
static inline int tare_labels_are_flags(const tare_problem *problem) {
  return problem->family == TARE_LOSS_FAMILY_REGRESSION ||
         (problem->has_scores && (problem->takes & TARE_TAKES_BIN_TARGET));
}

/** The parts of the batch that a call needs, beyond its shape. */
enum tare_need {
  TARE_NEED_LOGITS = 1,
  TARE_NEED_LABELS = 2,
  TARE_NEED_LINEAR = 4 /* with TARE_NEED_LOGITS: the call forms the logits; the batch has none, and one row axis */
};

/** The text of an error. */
typedef struct tare_error {
  char text[512];
} tare_error;

/** Writes the text and returns `status`. */
tare_status tare_fail(tare_error *error, tare_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** TARE_STATUS_WORKSPACE_TOO_SMALL unless `bytes` are at least what tare_workspace_size says, `needed`. */
tare_status tare_check_workspace(uint64_t needed, uint64_t bytes, tare_error *error);

/** Checks the arguments of a call and puts them in `problem`. `loss` and `output` may be NULL where the call has
 *  none. */
tare_status tare_problem_build(tare_problem *problem, const tare_loss_spec *loss, const tare_batch *batch,
                               const tare_output *output, int needs, tare_error *error);

/** Checks `batch` and fills the batch fields and the views of `problem`. */
tare_status tare_problem_set_batch(tare_problem *problem, const tare_batch *batch, int needs, tare_error *error);

/** Checks `loss` alone and fills the loss fields of `problem`. */
tare_status tare_problem_set_loss(tare_problem *problem, const tare_loss_spec *loss, tare_error *error);

/** Whether the divisor is formed from the batch. */
static inline int tare_counts_rows(const tare_output *output) {
  return output->normalizer != TARE_NORMALIZER_SUM && output->normalizer != TARE_NORMALIZER_VALUE;
}

/** Whether targets are summed, by a pass of its own over labels, scores and targets. */
static inline int tare_sums_targets(const tare_output *output) {
  return output->normalizer == TARE_NORMALIZER_TARGETS || output->normalizer == TARE_NORMALIZER_ONES ||
         output->normalizer_sums;
}

/** Whether elements are counted one by one, because classes are masked: by the pass that sums targets. */
static inline int tare_counts_elements(const tare_problem *problem) {
  const tare_output *output = &problem->output;
  return problem->batch.class_mask && (output->normalizer == TARE_NORMALIZER_ELEMENTS || output->normalizer_sums);
}

/** Whether the rows that count are looked at once more before the loss: for targets, or for classes that are masked. */
static inline int tare_sums_elements(const tare_problem *problem) {
  return tare_sums_targets(&problem->output) || tare_counts_elements(problem);
}

/** Bytes of an element of one of the problem's arrays. */
int64_t tare_array_bytes(const tare_problem *problem, int name);

/** Checks that the loss has gradient norms that can be counted into a state of the caller's. */
tare_status tare_check_state_call(const tare_problem *problem, tare_error *error);

/** Checks `theirs` together with its problem, and fills `linear`, including defaults. */
tare_status tare_linear_build(tare_linear *linear, const tare_linear *theirs, const tare_problem *problem,
                              tare_error *error);

/** Rows [first, first + rows) of a fused head's problem, with their logits and gradient (or NULL) [rows, classes]. */
void tare_problem_slice(tare_problem *slice, const tare_problem *whole, int64_t first, int64_t rows, float *logits,
                        float *gradient);

static inline int tare_is_ghm(const tare_problem *problem) { return problem->passes == TARE_PASSES_DENSITY; }

/** The class that the background label is itself in a softmax loss, else -1. */
static inline int32_t tare_background_class(const tare_problem *problem) {
  const tare_batch *b = &problem->batch;
  if (problem->family != TARE_LOSS_FAMILY_SOFTMAX || b->background_label < b->first_label) return -1;
  if (tare_labels_are_flags(problem)) return -1;
  const uint64_t cls = (uint64_t)b->background_label - (uint64_t)b->first_label;
  return cls < (uint64_t)b->classes ? (int32_t)cls : -1;
}

/** A row's class where it has none. Its label says BACKGROUND, INVALID or IGNORED; a loss computes BACKGROUND alone. */
enum tare_row_role { TARE_ROW_BACKGROUND = -1, TARE_ROW_SKIPPED = -2, TARE_ROW_INVALID = -3, TARE_ROW_IGNORED = -4 };

/** What the loss makes of a background row. In a softmax loss it is of the class that its label is, or skipped where
 *  that is no class. Where labels are flags it is skipped. */
static inline int32_t tare_background_role(const tare_problem *problem) {
  if (tare_labels_are_flags(problem)) return TARE_ROW_SKIPPED;
  if (problem->family != TARE_LOSS_FAMILY_SOFTMAX || problem->soft) return TARE_ROW_BACKGROUND;
  const int32_t cls = tare_background_class(problem);
  return cls < 0 ? TARE_ROW_SKIPPED : cls;
}

/** Whether a label with score 0 is computed and weighed as a negative. */
static inline int tare_is_negative_at_0(const tare_problem *problem) {
  return problem->loss.kind == TARE_LOSS_SIGMOID_VARIFOCAL && !problem->positives_are_labels;
}

/** Whether classes have weights of negatives or exponents of their own, or terms have. On a GPU such a call has its own
 *  kernel. */
static inline int tare_has_columns(const tare_problem *problem) {
  return problem->batch.negative_weights || problem->batch.background_negative_weights || problem->gamma_per_class ||
         problem->weighs_terms;
}

/** Whether targets below 1 are those of negatives. */
static inline int tare_has_peaks(const tare_problem *problem) {
  return problem->loss.kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL;
}

/** Bytes of one element. */
static inline int64_t tare_dtype_bytes(int32_t dtype) {
  return dtype == TARE_DTYPE_F64 ? 8 : dtype == TARE_DTYPE_F32 ? 4 : 2;
}

#endif
