/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls of the fused head: check the arguments, then call the backend. */
#include "backend.h"

static tare_status build(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                         const tare_linear *theirs, const tare_output *output, tare_problem *problem,
                         tare_linear *linear) {
  tare_status status =
      tare_problem_build(problem, loss, batch, output, TARE_NEED_LOGITS | TARE_NEED_LINEAR, &context->error);
  if (!status && tare_is_ghm(problem) && problem->loss.ghm.density == TARE_GHM_DENSITY_EXACT)
    status = tare_fail(
        &context->error, TARE_STATUS_UNSUPPORTED,
        "loss->ghm.density is TARE_GHM_DENSITY_EXACT; it sorts all logits, and a fused head never has them all: "
        "use TARE_GHM_DENSITY_UNIT_REGION, or tare_evaluate");
  return status ? status : tare_linear_build(linear, theirs, problem, &context->error);
}

tare_status tare_linear_evaluate(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                 const tare_linear *linear, const tare_output *output, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_problem problem;
  tare_linear ours;
  if (!output) return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "output is NULL");
  const tare_status status = build(context, loss, batch, linear, output, &problem, &ours);
  if (status) return status;
  return context->backend->linear_evaluate(context->backend, &problem, &ours, context->workspace,
                                           context->workspace_bytes, stream, &context->error);
}

tare_status tare_linear_ghm_histogram(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                      const tare_linear *linear, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_problem problem;
  tare_linear ours;
  tare_status status = build(context, loss, batch, linear, NULL, &problem, &ours);
  if (!status) status = tare_check_state_call(&problem, &context->error);
  if (status) return status;
  return context->backend->linear_histogram(context->backend, &problem, &ours, context->workspace,
                                            context->workspace_bytes, stream, &context->error);
}

tare_status tare_linear_workspace_size(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_linear *linear, const tare_output *output, uint64_t *least,
                                       uint64_t *ample) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_problem problem;
  tare_linear ours;
  uint64_t sizes[2];
  tare_status status = build(context, loss, batch, linear, output, &problem, &ours);
  if (!status)
    status =
        context->backend->linear_workspace(context->backend, &problem, &ours, &sizes[0], &sizes[1], &context->error);
  if (status) return status;
  if (least) *least = sizes[0];
  if (ample) *ample = sizes[1];
  return TARE_STATUS_OK;
}
