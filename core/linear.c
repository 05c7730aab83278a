/* SPDX-License-Identifier: Apache-2.0 */
/* The public calls of the fused head: check the arguments, plan, then call the backend. */
#include "backend.h"

/** A checked call, and what the backend needs for it. */
typedef struct head_call {
  tare_problem problem;
  tare_linear linear;
  tare_linear_needs needs;
} head_call;

static tare_status build(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                         const tare_linear *linear, const tare_output *output, head_call *call) {
  tare_problem *const problem = &call->problem;
  tare_error *const error = &context->error;
  tare_status status = tare_problem_build(problem, loss, batch, output, TARE_NEED_LOGITS | TARE_NEED_LINEAR, error);
  if (!status && tare_density_source(problem) == TARE_DENSITY_SOURCE_KEYS)
    status = tare_fail(error, TARE_STATUS_UNSUPPORTED,
                       "loss->ghm.density is TARE_GHM_DENSITY_EXACT; it sorts all logits, and a fused head never has "
                       "all logits at once: "
                       "use TARE_GHM_DENSITY_UNIT_REGION, or tare_evaluate");
  if (!status) status = tare_linear_build(&call->linear, linear, problem, error);
  if (status) return status;
  call->needs = (tare_linear_needs){.alignment = 1};
  return context->backend->linear_needs(context->backend, problem, &call->linear, &call->needs, error);
}

static tare_status make_plan(tare_context *context, const head_call *call, int measures, tare_linear_plan *plan) {
  *plan = (tare_linear_plan){.problem = &call->problem,
                             .linear = &call->linear,
                             .measures = measures,
                             .has_gradient = tare_linear_has_gradient(&call->linear)};
  return tare_linear_plan_make(plan, &call->needs, context->workspace, context->workspace_bytes, &context->error);
}

/** Without rows there is nothing to multiply. */
static tare_status evaluate_no_rows(tare_context *context, const head_call *call, tare_stream stream) {
  tare_backend *const backend = context->backend;
  const tare_linear *const linear = &call->linear;
  const uint64_t of_bias = sizeof(float) * (uint64_t)call->problem.batch.classes;
  tare_plan plan;
  tare_status status = tare_plan_evaluation(context, &call->problem, &plan); /* it needs no workspace */
  if (!status) status = backend->evaluate(backend, &plan, stream, &context->error);
  if (!status && linear->weights_gradient && !linear->accumulate)
    status = backend->clear(backend, linear->weights_gradient, of_bias * (uint64_t)linear->dimensions, stream,
                            &context->error);
  if (!status && linear->bias_gradient && !linear->accumulate)
    status = backend->clear(backend, linear->bias_gradient, of_bias, stream, &context->error);
  return status;
}

tare_status tare_linear_evaluate(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                 const tare_linear *linear, const tare_output *output, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  if (!output) return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "output is NULL");
  head_call call;
  tare_linear_plan plan;
  tare_status status = build(context, loss, batch, linear, output, &call);
  if (status) return status;
  if (!call.problem.rows) return evaluate_no_rows(context, &call, stream);
  status = make_plan(context, &call, tare_density_source(&call.problem) == TARE_DENSITY_SOURCE_COUNTS, &plan);
  return status ? status : context->backend->linear_evaluate(context->backend, &plan, stream, &context->error);
}

tare_status tare_linear_ghm_histogram(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                      const tare_linear *linear, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_backend *const backend = context->backend;
  head_call call;
  tare_linear_plan plan;
  tare_status status = build(context, loss, batch, linear, NULL, &call);
  if (!status) status = tare_check_state_call(&call.problem, &context->error);
  if (status) return status;
  if (!call.problem.rows) return backend->ghm_histogram(backend, &call.problem, stream, &context->error);
  status = make_plan(context, &call, 0, &plan);
  return status ? status : backend->linear_histogram(backend, &plan, stream, &context->error);
}

tare_status tare_linear_workspace_size(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_linear *linear, const tare_output *output, uint64_t *least,
                                       uint64_t *ample) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  head_call call;
  uint64_t sizes[2];
  const tare_status status = build(context, loss, batch, linear, output, &call);
  if (status) return status;
  tare_linear_plan_sizes(&call.needs, &call.problem, &sizes[0], &sizes[1]);
  if (least) *least = sizes[0];
  if (ample) *ample = sizes[1];
  return TARE_STATUS_OK;
}
