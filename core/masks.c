/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of masks: the public calls, their defaults, and the plan of the workspace. */
#include "masks.h"

#include "backend.h"
#include "check/masks.h"
#include "losses/powers.h"
#include "structs.h"

/** The parts of the workspace, each a multiple of 8 bytes; from `workspace`, or NULL where only the size is wanted. */
static void plan(tare_mask_problem *problem, void *workspace) {
  const uint64_t masks = (uint64_t)problem->masks.masks;
  problem->chunks = (problem->masks.pixels + TARE_MASK_CHUNK - 1) / TARE_MASK_CHUNK;
  const uint64_t results = sizeof(tare_mask_totals), partials = results + masks * sizeof(tare_mask_result);
  problem->bytes = partials + masks * (uint64_t)problem->chunks * sizeof(tare_mask_partial);
  if (!workspace) return;
  unsigned char *const room = workspace;
  problem->totals = (void *)room;
  problem->results = (void *)(room + results);
  problem->partials = (void *)(room + partials);
}

/** A workspace must have a size: chunks of many large masks may be more than an integer holds. */
static tare_status check_size(const tare_masks *masks, tare_error *error) {
  const int64_t most = (int64_t)1 << 50;
  if (!masks->masks || masks->pixels <= most / masks->masks) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                   "masks->masks is %lld and masks->pixels %lld; together they must be at most 2^50 pixels",
                   (long long)masks->masks, (long long)masks->pixels);
}

static tare_status read_masks(tare_masks *ours, const tare_masks *theirs, tare_error *error) {
  tare_masks_init(ours, 0, 0);
  tare_status status = tare_read_struct(ours, theirs, &tare_masks_layout, error);
  if (!status) status = tare_check_mask_shape(ours, error);
  return status ? status : check_size(ours, error);
}

static void derive(tare_mask_problem *p) {
  p->setting = (tare_overlap_setting){.false_positive_weight = p->spec.false_positive_weight,
                                      .false_negative_weight = p->spec.false_negative_weight,
                                      .exponent = p->spec.exponent,
                                      .numerator_smoothing = p->spec.numerator_smoothing,
                                      .denominator_smoothing = p->spec.denominator_smoothing,
                                      .squared = p->spec.squared};
  p->power = tare_power_of_gamma(p->spec.gamma);
  p->has_gradient = p->output.gradient && p->masks.masks && p->masks.pixels;
  tare_target_range(p->masks.target_dtype, &p->target_least, &p->target_most); /* u8 as f32 */
}

static tare_status build(tare_mask_problem *problem, const tare_mask_spec *spec, const tare_masks *masks,
                         const tare_mask_output *output, tare_error *error) {
  tare_mask_spec_init(&problem->spec);
  tare_mask_output_init(&problem->output, 0);
  tare_status status = tare_read_struct(&problem->spec, spec, &tare_mask_spec_layout, error);
  if (!status) status = tare_check_mask_spec(&problem->spec, error);
  if (!status) status = read_masks(&problem->masks, masks, error);
  if (!status) status = tare_read_struct(&problem->output, output, &tare_mask_output_layout, error);
  if (!status) status = tare_check_masks(&problem->masks, &problem->output, error);
  if (!status) derive(problem);
  return status;
}

tare_status tare_mask_evaluate(tare_context *context, const tare_mask_spec *spec, const tare_masks *masks,
                               const tare_mask_output *output, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_mask_problem problem = {0};
  tare_status status = build(&problem, spec, masks, output, &context->error);
  if (status) return status;
  plan(&problem, context->workspace);
  if (problem.bytes > context->workspace_bytes)
    return tare_fail(&context->error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                     "workspace has %llu bytes; this call needs %llu: see tare_mask_workspace_size and "
                     "tare_context_set_workspace",
                     (unsigned long long)context->workspace_bytes, (unsigned long long)problem.bytes);
  return context->backend->evaluate_masks(context->backend, &problem, stream, &context->error);
}

tare_status tare_mask_workspace_size(tare_context *context, const tare_masks *masks, uint64_t *bytes) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  if (!bytes) return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "bytes is NULL");
  tare_mask_problem problem = {0};
  const tare_status status = read_masks(&problem.masks, masks, &context->error);
  if (status) return status;
  plan(&problem, NULL);
  *bytes = problem.bytes;
  return TARE_STATUS_OK;
}
