/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights of running counts, in device memory: the calls and their arguments. */
#include "class_balance.h"

#include <math.h>

#include "backend.h"
#include "check/overlap.h"
#include "structs.h"

uint64_t tare_class_balance_state_bytes(int64_t classes) {
  return classes >= 1 && classes < INT32_MAX ? 8 * (1 + 2 * (uint64_t)classes) : 0;
}

static tare_status check_numbers(const tare_class_balance *balance, tare_error *error) {
  if (balance->classes < 1 || balance->classes >= INT32_MAX)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->classes is %lld; it must be in [1,%d]",
                     (long long)balance->classes, INT32_MAX - 1);
  if (!(balance->beta >= 0.0 && balance->beta < 1.0))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->beta is %.17g; it must be in [0,1)", balance->beta);
  if (!(balance->decay > 0.0 && balance->decay <= 1.0))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->decay is %.17g; it must be in (0,1]",
                     balance->decay);
  if (!(balance->least_count == 0.0 || (balance->least_count >= 1e-30 && balance->least_count <= 0x1p53)))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->least_count is %.17g; it must be 0, or in [1e-30,2^53]", balance->least_count);
  return TARE_STATUS_OK;
}

/** An array of the results, float [classes]. */
static tare_status check_result(const tare_class_balance *balance, const char *name, const float *result,
                                tare_error *error) {
  if ((uintptr_t)result % sizeof(float))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->%s is %p; it must be aligned to 4 bytes", name,
                     (const void *)result);
  if (tare_ranges_overlap(result, sizeof(float) * (uint64_t)balance->classes, balance->state,
                          tare_class_balance_state_bytes(balance->classes)))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->%s (%p) overlaps balance->state (%p); give it memory of its own", name,
                     (const void *)result, balance->state);
  return TARE_STATUS_OK;
}

static tare_status check_pointers(const tare_class_balance *balance, int needs_results, tare_error *error) {
  const uint64_t bytes = sizeof(float) * (uint64_t)balance->classes;
  if (!balance->state || (uintptr_t)balance->state % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->state is %p; it must be %llu bytes, aligned to 8 (tare_class_balance_state_bytes)",
                     balance->state, (unsigned long long)tare_class_balance_state_bytes(balance->classes));
  if (needs_results && !balance->weights && !balance->log_counts)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->weights and balance->log_counts are NULL; one of them must be float [%lld]",
                     (long long)balance->classes);
  tare_status status = check_result(balance, "weights", balance->weights, error);
  if (!status) status = check_result(balance, "log_counts", balance->log_counts, error);
  if (!status && tare_ranges_overlap(balance->weights, bytes, balance->log_counts, bytes))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->log_counts (%p) overlaps balance->weights (%p); give it memory of its own",
                     (void *)balance->log_counts, (void *)balance->weights);
  return status;
}

static tare_status read_balance(tare_class_balance *ours, const tare_class_balance *theirs, int needs_results,
                                tare_error *error) {
  if (!theirs) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance is NULL");
  tare_class_balance_init(ours, 1);
  tare_status status = tare_read_struct(ours, theirs, &tare_class_balance_layout, error);
  if (!status) status = check_numbers(ours, error);
  return status ? status : check_pointers(ours, needs_results, error);
}

tare_status tare_class_balance_count(tare_context *context, const tare_class_balance *balance, const tare_batch *batch,
                                     tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_class_balance ours = {0};
  tare_problem problem;
  tare_status status = read_balance(&ours, balance, 0, &context->error);
  if (!status) status = tare_problem_build(&problem, NULL, batch, NULL, TARE_NEED_LABELS, &context->error);
  if (status) return status;
  if (problem.batch.classes != ours.classes)
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->classes is %lld and batch->classes %lld; they must be equal", (long long)ours.classes,
                     (long long)problem.batch.classes);
  return context->backend->label_counts(context->backend, &problem, NULL, tare_balance_step_counts(&ours), stream,
                                        &context->error);
}

static tare_status weigh(tare_context *context, const tare_class_balance *balance, int steps, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_balance_step step = {.steps = steps};
  const tare_status status = read_balance(&step.balance, balance, !steps, &context->error);
  if (status) return status;
  step.log_beta = step.balance.beta > 0.0 ? log(step.balance.beta) : -1e306;
  return context->backend->balance_classes(context->backend, &step, stream, &context->error);
}

tare_status tare_class_balance_step(tare_context *context, const tare_class_balance *balance, tare_stream stream) {
  return weigh(context, balance, 1, stream);
}

tare_status tare_class_balance_weigh(tare_context *context, const tare_class_balance *balance, tare_stream stream) {
  return weigh(context, balance, 0, stream);
}
