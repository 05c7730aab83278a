/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls: check the arguments, then call the backend. */
#include <string.h>

#include "backend.h"
#include "losses/ghm.h"

static tare_status no_context(void) {
  return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
}

tare_status tare_plan_evaluation(tare_context *context, const tare_problem *problem, tare_plan *plan) {
  uint64_t own_bytes = 0;
  const tare_status status = context->backend->needs(context->backend, problem, &own_bytes, &context->error);
  if (!status) tare_plan_make(plan, problem, own_bytes, context->workspace);
  return status;
}

tare_status tare_evaluate(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                          const tare_output *output, tare_stream stream) {
  if (!context) return no_context();
  tare_problem problem;
  if (!output) return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "output is NULL");
  tare_plan plan;
  tare_status status = tare_problem_build(&problem, loss, batch, output, TARE_NEED_LOGITS, &context->error);
  if (!status) status = tare_plan_evaluation(context, &problem, &plan);
  if (!status) status = tare_check_workspace(plan.bytes, context->workspace_bytes, &context->error);
  return status ? status : context->backend->evaluate(context->backend, &plan, stream, &context->error);
}

tare_status tare_workspace_size(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                const tare_output *output, uint64_t *bytes) {
  if (!context) return no_context();
  tare_problem problem;
  if (!bytes) return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "bytes is NULL");
  tare_plan plan;
  tare_status status = tare_problem_build(&problem, loss, batch, output, TARE_NEED_LOGITS, &context->error);
  if (!status) status = tare_plan_evaluation(context, &problem, &plan);
  if (!status) *bytes = plan.bytes;
  return status;
}

tare_status tare_label_counts(tare_context *context, const tare_batch *batch, tare_counts *counts, int64_t *per_class,
                              tare_stream stream) {
  if (!context) return no_context();
  tare_problem problem;
  if ((uintptr_t)counts % 8 || (uintptr_t)per_class % 8)
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT,
                     "counts is %p and per_class %p; they must be aligned to 8 bytes", (void *)counts,
                     (void *)per_class);
  const tare_status status = tare_problem_build(&problem, NULL, batch, NULL, TARE_NEED_LABELS, &context->error);
  if (status) return status;
  return context->backend->label_counts(context->backend, &problem, counts, per_class, stream, &context->error);
}

tare_status tare_check_state_call(const tare_problem *problem, tare_error *error) {
  if (!tare_is_ghm(problem))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "loss->kind is %d (%s); it must be TARE_LOSS_GHM_C or TARE_LOSS_GHM_R", problem->loss.kind,
                     tare_loss_name(problem->loss.kind));
  if (problem->loss.ghm.density == TARE_GHM_DENSITY_EXACT)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "loss->ghm.density is TARE_GHM_DENSITY_EXACT; the exact density has no histogram and cannot be "
                     "split over calls "
                     "or ranks: use TARE_GHM_DENSITY_UNIT_REGION");
  if (!problem->loss.ghm.state)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "loss->ghm.state is NULL; this call needs tare_ghm_state_bytes(%d) "
                     "bytes",
                     problem->loss.ghm.bins);
  return TARE_STATUS_OK;
}

tare_status tare_ghm_histogram(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                               tare_stream stream) {
  if (!context) return no_context();
  tare_problem problem;
  tare_status status = tare_problem_build(&problem, loss, batch, NULL, TARE_NEED_LOGITS, &context->error);
  if (!status) status = tare_check_state_call(&problem, &context->error);
  if (status) return status;
  return context->backend->ghm_histogram(context->backend, &problem, stream, &context->error);
}

tare_status tare_ghm_density_update(tare_context *context, const tare_loss_spec *loss, tare_stream stream) {
  if (!context) return no_context();
  tare_problem problem;
  memset(&problem, 0, sizeof problem);
  tare_status status = tare_problem_set_loss(&problem, loss, &context->error);
  if (!status) status = tare_check_state_call(&problem, &context->error);
  if (status) return status;
  return context->backend->ghm_density_update(context->backend, &problem, stream, &context->error);
}

uint64_t tare_ghm_state_bytes(int32_t bins) {
  return bins >= 1 && bins <= TARE_MAX_BINS ? 8 * (2 + 3 * (uint64_t)bins) : 0;
}

tare_status tare_context_synchronize(tare_context *context, tare_stream stream) {
  if (!context) return no_context();
  return context->backend->check(context->backend, stream, &context->error);
}
