/* SPDX-License-Identifier: Apache-2.0 */
/* The interface of a backend, and the contents of a context. */
#ifndef TARE_CORE_BACKEND_H
#define TARE_CORE_BACKEND_H

#include "class_balance.h"
#include "gradient_balance.h"
#include "linear_plan.h"
#include "masks.h"
#include "plan.h"
#include "scale_gradients.h"

typedef struct tare_backend tare_backend;

/** Every function gets checked arguments. If it fails, it writes no output and puts a text in `error`. */
struct tare_backend {
  void (*destroy)(tare_backend *self);
  void (*describe)(tare_backend *self, tare_context_description *description);
  /** Refuses what this backend does not compute. `own_bytes`, 0 before, receives what it needs for itself in the
   *  workspace of an exact density. */
  tare_status (*needs)(tare_backend *self, const tare_problem *problem, uint64_t *own_bytes, tare_error *error);
  tare_status (*evaluate)(tare_backend *self, const tare_plan *plan, tare_stream stream, tare_error *error);
  tare_status (*label_counts)(tare_backend *self, const tare_problem *problem, tare_counts *counts, int64_t *per_class,
                              tare_stream stream, tare_error *error);
  tare_status (*ghm_histogram)(tare_backend *self, const tare_problem *problem, tare_stream stream, tare_error *error);
  tare_status (*ghm_density_update)(tare_backend *self, const tare_problem *problem, tare_stream stream,
                                    tare_error *error);
  tare_status (*scale_gradients)(tare_backend *self, const tare_scaling *scaling, tare_stream stream,
                                 tare_error *error);
  tare_status (*balance_classes)(tare_backend *self, const tare_balance_step *step, tare_stream stream,
                                 tare_error *error);
  /** Refuses what this backend does not compute before it does anything. */
  tare_status (*evaluate_masks)(tare_backend *self, const tare_mask_problem *problem, tare_stream stream,
                                tare_error *error);
  tare_status (*balance_gradients)(tare_backend *self, const tare_gradient_step *step, tare_stream stream,
                                   tare_error *error);
  tare_status (*check)(tare_backend *self, tare_stream stream, tare_error *error);

  /** Sets `bytes` bytes of device memory to 0. */
  tare_status (*clear)(tare_backend *self, void *data, uint64_t bytes, tare_stream stream, tare_error *error);

  /* The fused head: one level, one row axis, no logits. The last two follow a plan and call core/linear_chunks.h. */
  tare_status (*linear_needs)(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                              tare_linear_needs *needs, tare_error *error);
  tare_status (*linear_evaluate)(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                 tare_error *error);
  tare_status (*linear_histogram)(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                  tare_error *error);
};

tare_status tare_cpu_backend_create(const tare_context_options *options, tare_backend **backend, tare_error *error);

struct tare_context {
  tare_backend *backend;
  void *workspace;
  uint64_t workspace_bytes;
  char reason[256];
  tare_error error;
};

/** Plans an evaluation with the context's workspace, whose size is yet to be checked. */
tare_status tare_plan_evaluation(tare_context *context, const tare_problem *problem, tare_plan *plan);

/** The text of the calling thread's last failed call without a context. */
tare_error *tare_thread_error(void);

#endif
