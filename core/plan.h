/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of an evaluation: which passes it takes, and where the parts of its workspace lie. It is the same on every
 * backend. A fused head has a plan of its own: core/linear_plan.h.
 */
#ifndef TARE_CORE_PLAN_H
#define TARE_CORE_PLAN_H

#include "selection.h"

/** Where a GHM loss takes its density from. */
enum tare_density_source {
  TARE_DENSITY_SOURCE_NONE,   /* no GHM loss */
  TARE_DENSITY_SOURCE_STATE,  /* 1/GD as it is in the caller's state */
  TARE_DENSITY_SOURCE_COUNTS, /* a pass before counts gradient norms by unit region */
  TARE_DENSITY_SOURCE_KEYS    /* exact: a pass before collects a key of each gradient norm, to be sorted */
};

static inline int tare_density_source(const tare_problem *problem) {
  if (!tare_is_ghm(problem)) return TARE_DENSITY_SOURCE_NONE;
  if (problem->loss.ghm.density == TARE_GHM_DENSITY_EXACT) return TARE_DENSITY_SOURCE_KEYS;
  return problem->loss.ghm.use_stored_density ? TARE_DENSITY_SOURCE_STATE : TARE_DENSITY_SOURCE_COUNTS;
}

/** Whether something of the output depends on counts of labels. */
static inline int tare_counts_labels(const tare_output *output) {
  return tare_counts_rows(output) || output->counts || output->normalizer_sums;
}

typedef struct tare_plan {
  const tare_problem *problem;
  int density;                   /* a tare_density_source */
  int selects;                   /* two steps before: row losses are measured, labels settled */
  int evaluates;                 /* something depends on the logits; else sums of the normalizers are all */
  uint64_t bytes;                /* of the whole workspace */
  tare_selection_room selection; /* if it selects */
  tare_class_sums *class_sums;   /* of slice 1 and those that follow it; see core/class_sums.h */

  /* Of TARE_DENSITY_SOURCE_KEYS; without elements there are no arrays. */
  int64_t keys;                 /* the most: one for each element */
  void *own;                    /* [own_bytes], for the backend itself */
  uint64_t own_bytes;           /* a multiple of 8 */
  double *key, *weight, *spare; /* [keys] each */
} tare_plan;

/** `own_bytes`: what tare_backend.needs asks for. `workspace` may be NULL where only `bytes` is wanted. */
void tare_plan_make(tare_plan *plan, const tare_problem *problem, uint64_t own_bytes, void *workspace);

#endif
