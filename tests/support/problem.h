/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A problem is one evaluation, described once: its numbers as plain arrays in row order, and how each of them is to
 * lie in memory. It runs through the library (run.c) and through the oracle (expect.c), and the two are compared.
 *
 * A run checks more than numbers: guards on both sides of every array, inputs left as they were, outputs written in
 * their own places only, and nothing written at all by a call that failed.
 */
#ifndef TARE_TESTS_PROBLEM_H
#define TARE_TESTS_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "../oracle/oracle.h"
#include "compare.h"
#include "devices.h"
#include "tare.h"

enum axis { AXIS_IMAGE, AXIS_Y, AXIS_X, AXIS_ANCHOR, AXIS_CLASS, AXES };

enum array_kind {
  ARRAY_LOGITS,
  ARRAY_GRADIENT,
  ARRAY_LABELS,
  ARRAY_TARGETS,
  ARRAY_ROW_WEIGHTS,
  ARRAY_ELEMENT_WEIGHTS,
  ARRAY_ROW_LOSS,
  ARRAY_ELEMENT_LOSS,
  ARRAY_SCORES,
  ARRAY_KINDS
};

/** Whether an array has one number a row. */
bool is_row_array(int kind);

/* How an array lies in memory. All zero: contiguous [image, y, x, anchor, class]. */
typedef struct placement {
  bool channels_first; /* [image, anchor, class, y, x] instead */
  int64_t pad[AXES];   /* further places after each axis: the array is a slice of a larger tensor */
  unsigned flip;       /* bits 1 << axis: the axis runs backwards (a stride below 0) */
  unsigned broadcast;  /* bits 1 << axis: the axis has stride 0; the problem's numbers must agree along it */
  int64_t phase;       /* elements by which the pointer is past a multiple of 64 bytes */
} placement;

typedef struct level_shape {
  int64_t height, width, anchors;
} level_shape;

/* How the class mask lies in memory. All zero: contiguous. */
typedef struct mask_placement {
  bool is_one;                  /* the first image's is that of all */
  bool flips;                   /* both axes run backwards */
  bool channels_first;          /* the classes are outermost */
  int64_t class_pad, image_pad; /* bytes after each */
} mask_placement;

enum want {
  WANT_LOSS = 1,
  WANT_GRADIENT = 2,
  WANT_ROW_LOSS = 4,
  WANT_ELEMENT_LOSS = 8,
  WANT_COUNTS = 16,
  WANT_ALL = 31, /* of what every call can give */
  WANT_CLASS_SUMS = 32,
  WANT_NORMALIZER_SUMS = 64, /* with TARE_NORMALIZER_SCOPE_LEVEL of each level */
  WANT_LEVEL_LOSSES = 128
};

/* tare_evaluate in another way: on a stream, through a graph. It waits for what it started. */
typedef tare_status problem_call(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                 const tare_output *output, void *user);

/* What a level has of its own. */
typedef struct level_scalars {
  double weight;  /* 0: 1 */
  double divisor; /* 0: the normalizer's */
  bool on_device; /* pass the divisor by divisor_pointer */
} level_scalars;

typedef struct problem {
  tare_loss_spec loss; /* its alpha_per_class, offset and ghm.state are set by the run, from the fields below */
  int32_t dtype, label_dtype, target_dtype, score_dtype, loss_dtype;
  int64_t images, classes, rows; /* rows: of all images and levels */
  int32_t level_count;
  level_shape levels[TARE_MAX_LEVELS];
  int64_t first_label, background_label, ignore_label;
  double background_weight;

  /* Numbers in row order, owned by the problem; values that the array's type can hold. NULL: not given. */
  double *logits;                                             /* [rows, classes] */
  int64_t *labels;                                            /* [rows] */
  double *targets;                                            /* [rows, classes] */
  double *scores;                                             /* [rows] */
  double *row_weights;                                        /* [rows] */
  double *element_weights;                                    /* [rows, classes] */
  double *class_weights, *positive_weights, *alpha_per_class; /* [classes] */
  double *negative_weights, *gamma_per_class;                 /* [classes]; of losses that take them */
  double *background_negative_weights;                        /* [classes]; the same */
  double *offset, *log_counts, *margins;                      /* [classes]; only of the loss that needs them */
  unsigned char *class_mask;                                  /* [images, classes] */
  mask_placement mask_place;

  int32_t normalizer;
  double normalizer_value;
  double normalizer_addend, normalizer_minimum;
  int32_t normalizer_scope;
  level_scalars of_level[TARE_MAX_LEVELS];
  bool normalizer_on_device; /* pass the value by normalizer_pointer */
  double gradient_scale;
  double device_scale; /* not 0: gradient_scale_pointer */

  unsigned want;
  placement place[ARRAY_KINDS];
  bool in_place;    /* the gradient is the logits */
  bool image_major; /* labels, scores, row weights and row losses: [images, rows of all levels of an image] */

  uint64_t *ghm_state; /* the library's state as bytes, owned; updated by a run. NULL: none is passed */
  struct oracle_ghm_state *oracle_state; /* the oracle's, owned; updated by problem_expect */

  struct head *head; /* what the logits come from (support/head.h), owned; NULL: they are given */

  double slack;          /* allowed absolute error of elements, for soft targets */
  bool drawn;            /* at random (support/draw.h): zeros may pass for some of its arrays */
  tare_context *context; /* instead of the device's own; not owned. NULL: the device's */
  bool device_lost;      /* what a device that failed holds is not looked at */
  problem_call *call;    /* instead of tare_evaluate on the default stream, with `user`; NULL: that */
  void *user;
} problem;

/** One level of `rows` contiguous rows. Random logits, and random labels (GHM-R: targets too), about a third of the
 *  rows positive and some ignored, in every dtype's range; everything wanted that the loss can give. */
problem *problem_new(int32_t kind, int32_t dtype, int64_t rows, int64_t classes);

/** The same over several levels and images. */
problem *problem_new_levels(int32_t kind, int32_t dtype, int64_t images, int64_t classes, int32_t level_count,
                            const level_shape *levels);

void problem_free(problem *p);

/** Fresh random labels in the problem's own label convention. */
void problem_draw_labels(problem *p, double positive, double ignored);

/** Random dense targets: exact zeros and ones, and values between. Keeps the labels. */
void problem_draw_targets(problem *p, int32_t target_dtype);

/** Targets between bins: whole numbers, out of range, and between; or two weights. */
void problem_draw_bins(problem *p, int32_t score_dtype);
/** Random scores: exact zeros and ones, values between, and NaN in rows without a class. */
void problem_draw_scores(problem *p, int32_t score_dtype);

/** Random weights: rows and elements in [0,2) with some exact zeros, classes in [0.1,2.1). */
void problem_draw_row_weights(problem *p);
void problem_draw_element_weights(problem *p);
double *random_class_weights(const problem *p, uint64_t salt);

/** A random class mask: about `share` of all classes count, in some images none and in some all. */
void problem_draw_class_mask(problem *p, double share);

/** A fresh GHM state of the problem's bins, for the library and for the oracle. */
void problem_add_ghm_state(problem *p);

/** Every loss of the library that the device in turn computes, so that a new one is tested without being named. Under
 *  the sanitizers every second one (devices.h, test_is_thinned): the even ones or the odd ones, by the loop's line. */
#define FOR_EACH_LOSS(kind)                                                                                        \
  for (int32_t loss_index = next_loss(-1, __LINE__), kind = listed_loss(loss_index); loss_index < listed_losses(); \
       loss_index = next_loss(loss_index, __LINE__), (kind) = listed_loss(loss_index))
int32_t next_loss(int32_t index, int line);
int32_t listed_losses(void);
int32_t listed_loss(int32_t index);

bool is_softmax(int32_t kind);
bool is_ghm(int32_t kind);
bool takes_scores(int32_t kind);
/** How many numbers of a target between bins tare_level::scores has for each row; 0: the loss has no bins. */
int32_t takes_bins(int32_t kind);
/** Numbers of the scores of a row. */
int64_t score_columns(const problem *p);

/** Whether a loss takes dense targets in the place of labels. GHM-R's targets are no classes. */
bool takes_targets(int32_t kind);

/** The type, or f32 where the loss does not take targets of that type. */
int32_t taken_target_dtype(int32_t kind, int32_t dtype);

/** Moves scores and dense targets of quality focal loss away from p, where its gradient loses its digits. */
void problem_keep_off_p(problem *p);

/** The loss, its size and its parameters in one line, for messages. Valid until the next call. */
const char *problem_text(const problem *p);

/* What a run or the oracle gave; arrays in row order, NULL where not wanted. */
typedef struct outcome {
  const test_device *device; /* that computed it; NULL: the oracle */
  tare_status status;        /* of tare_evaluate */
  char text[1024];           /* its error text */
  tare_status check_status;  /* of tare_context_synchronize afterwards */
  int64_t rows, elements;
  double loss;
  tare_counts counts;
  tare_normalizer_sums normalizer_sums[TARE_MAX_LEVELS]; /* [0], or one for each level */
  double level_loss[TARE_MAX_LEVELS];
  double *gradient, *row_loss, *element_loss;
  double *class_sums;        /* [classes, 4], as tare_class_sums */
  struct head_outcome *head; /* of a fused head, which has no gradient by the logits; else NULL */
} outcome;

void outcome_free(outcome *o);

/** Evaluates by the library: a fused head where the problem has one. The caller judges a status. A device must refuse
 *  what it does not compute (device_computes); the CPU then computes it, so that the test goes on. */
outcome *problem_run(problem *p, const test_device *device);

/** Evaluates by the oracle. */
outcome *problem_expect(problem *p);

/** Fails the test unless the library's outcome is the oracle's, within the problem's tolerances. */
void check_outcome_at(const char *file, int line, const problem *p, const outcome *got, const outcome *want);
#define CHECK_OUTCOME(p, got, want) check_outcome_at(__FILE__, __LINE__, (p), (got), (want))

/** Runs both and compares. */
void check_problem_at(const char *file, int line, problem *p, const test_device *device);
#define CHECK_PROBLEM(p, device) check_problem_at(__FILE__, __LINE__, (p), (device))

/** Fails the test unless the library refuses the problem with the status and, among its words, these. Frees it. */
void check_refused_at(const char *file, int line, problem *p, const test_device *device, tare_status status,
                      const char *words);
#define CHECK_REFUSED(p, device, status, words) check_refused_at(__FILE__, __LINE__, (p), (device), (status), (words))

/** Fails the test unless two outcomes of the library are equal bit for bit. */
void check_same_outcome_at(const char *file, int line, const problem *p, const outcome *got, const outcome *want);
#define CHECK_SAME_OUTCOME(p, got, want) check_same_outcome_at(__FILE__, __LINE__, (p), (got), (want))

/** Fails the test unless the outcomes of both have the same bits. Frees both. */
void check_same_bits(problem *p, problem *other, const test_device *device);

/** The loss weight of a level. */
double weight_of_level(const problem *p, int32_t level);

/** Tolerances that the problem's dtype and loss allow. */
tolerance gradient_tolerance(const problem *p);
tolerance element_tolerance(const problem *p);
tolerance row_tolerance(const problem *p);
tolerance loss_tolerance(const problem *p);
tolerance class_sums_tolerance(const problem *p);

#endif
