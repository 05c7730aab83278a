/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of a fused head: the rows of a chunk, where the parts of the workspace lie, and which logits are kept from
 * one pass to the next. A backend says what it needs. All else is decided here, for every backend.
 */
#ifndef TARE_CORE_LINEAR_PLAN_H
#define TARE_CORE_LINEAR_PLAN_H

#include "problem.h"

/** The parts of the workspace, in this order. No backend uses them all. */
enum tare_part {
  TARE_PART_BLAS,       /* for the BLAS itself */
  TARE_PART_BIAS_SUMS,  /* double: the gradient by b so far */
  TARE_PART_APART,      /* f32 [C, D]: this call's gradient by W, until it is added to the caller's */
  TARE_PART_WEIGHTS,    /* f32 [C, D]: W converted */
  TARE_PART_BIAS,       /* f32 [C]: b converted */
  TARE_PART_CLASS_SUMS, /* [slices - 1, C]: sums of a chunk's slices; see core/class_sums.h */
  TARE_PART_LOGITS,     /* f32 [rows, C]: logits, then the gradient by them */
  TARE_PART_NARROWED,   /* [rows, C]: that gradient in the features' type */
  TARE_PART_FEATURES,   /* f32 [rows, D]: X converted, then the gradient by X */
  TARE_PART_COUNT
};

/** Bytes of a part; all 0: there is none. */
typedef struct tare_part_size {
  uint64_t fixed;
  uint64_t of_row;  /* for each row of a chunk */
  uint64_t of_step; /* for each `step_rows` rows of a chunk, or the rest */
} tare_part_size;

/** What a backend needs. */
typedef struct tare_linear_needs {
  int64_t step_rows;   /* a chunk has a multiple of these, or all rows */
  int64_t ample_rows;  /* a chunk of more rows is not faster */
  uint64_t alignment;  /* of each part, counted from the first */
  int aligns_first;    /* the first part is aligned like the others; a caller's workspace is aligned to 16 bytes */
  uint64_t ample_blas; /* TARE_PART_BLAS has from `fixed` to this many bytes */
  tare_part_size size[TARE_PART_COUNT]; /* of TARE_PART_CLASS_SUMS and TARE_PART_LOGITS the plan knows it */
} tare_linear_needs;

/** What a call of tare_linear_evaluate or tare_linear_ghm_histogram follows. */
typedef struct tare_linear_plan {
  const tare_problem *problem;
  const tare_linear *linear;
  int64_t chunk_rows;
  int64_t kept_rows; /* the logits of these first rows have a place each; other chunks share the first one's */
  int measures;      /* a pass over all chunks measures them before one evaluates them */
  int has_gradient;
  uint64_t blas_bytes;
  void *part[TARE_PART_COUNT]; /* NULL: there is none */
} tare_linear_plan;

/** The gradient by the logits is multiplied by X or by W. */
static inline int tare_linear_has_products(const tare_linear *linear) {
  return linear->features_gradient || linear->weights_gradient;
}

static inline int tare_linear_has_gradient(const tare_linear *linear) {
  return tare_linear_has_products(linear) || linear->bias_gradient;
}

/** Bytes of TARE_PART_APART: a scale that is not finite is applied to this call's gradient alone. */
static inline uint64_t tare_linear_apart_bytes(const tare_problem *problem, const tare_linear *linear) {
  if (!linear->accumulate || !linear->weights_gradient) return 0;
  return sizeof(float) * (uint64_t)problem->batch.classes * (uint64_t)linear->dimensions;
}

/** The workspace's size: see tare_linear_workspace_size. */
void tare_linear_plan_sizes(const tare_linear_needs *needs, const tare_problem *problem, uint64_t *least,
                            uint64_t *ample);

/** Plans a call whose problem has rows and whose workspace is the caller's. `measures`: as in the plan.
 *  TARE_STATUS_WORKSPACE_TOO_SMALL below the least size. */
tare_status tare_linear_plan_make(tare_linear_plan *plan, const tare_linear_needs *needs, void *workspace,
                                  uint64_t bytes, tare_error *error);

#endif
