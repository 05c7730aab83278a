/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of running gradients (EQLv2, EFL), in device memory: the calls and their arguments. */
#include "gradient_balance.h"

#include "backend.h"
#include "check/overlap.h"
#include "structs.h"

uint64_t tare_gradient_balance_state_bytes(int64_t classes) {
  return classes >= 1 && classes < INT32_MAX ? 8 * (1 + 4 * (uint64_t)classes) : 0;
}

static tare_status check_range(const char *name, double value, double low, double high, tare_error *error) {
  if (value >= low && value <= high) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->%s is %.17g; it must be in [%g,%g]", name, value, low,
                   high);
}

static tare_status check_numbers(const tare_gradient_balance *b, tare_error *error) {
  if (b->classes < 1 || b->classes >= INT32_MAX)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->classes is %lld; it must be in [1,%d]",
                     (long long)b->classes, INT32_MAX - 1);
  if (b->rule != TARE_GRADIENT_RULE_EQLV2 && b->rule != TARE_GRADIENT_RULE_EFL)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->rule is %d; it must be TARE_GRADIENT_RULE_EQLV2 (0) or TARE_GRADIENT_RULE_EFL (1)",
                     b->rule);
  if (b->reserved)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->reserved is %d; it must be 0", b->reserved);
  if (b->exempt < -1 || b->exempt >= b->classes)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->exempt is %lld; it must be -1, or a class below %lld", (long long)b->exempt,
                     (long long)b->classes);
  tare_status status = check_range("steepness", b->steepness, 0, 1e6, error);
  if (!status) status = check_range("midpoint", b->midpoint, -1e6, 1e6, error);
  if (!status) status = check_range("gain", b->gain, 0, 1e6, error);
  if (!status) status = check_range("gamma", b->gamma, 1e-3, 1000, error);
  return status ? status : check_range("scale", b->scale, 0, 1000, error);
}

static tare_status check_outputs(const tare_gradient_balance *b, tare_error *error) {
  const float *const outputs[] = {b->positive_weights, b->negative_weights, b->gammas};
  static const char *const names[] = {"positive_weights", "negative_weights", "gammas"};
  const uint64_t bytes = sizeof(float) * (uint64_t)b->classes;
  for (int i = 0; i < 3; i++) {
    if ((uintptr_t)outputs[i] % sizeof(float))
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance->%s must be aligned to 4 bytes", names[i]);
    int meets = tare_ranges_overlap(outputs[i], bytes, b->state, tare_gradient_balance_state_bytes(b->classes));
    for (int other = 0; other < i; other++) meets |= tare_ranges_overlap(outputs[i], bytes, outputs[other], bytes);
    if (meets)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "balance->%s overlaps the state or another output; give it memory of its own", names[i]);
  }
  return TARE_STATUS_OK;
}

static tare_status check_pointers(const tare_gradient_balance *b, int32_t action, tare_error *error) {
  if (!b->state || (uintptr_t)b->state % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->state is %p; it must be %llu bytes, aligned to 8 (tare_gradient_balance_state_bytes)",
                     b->state, (unsigned long long)tare_gradient_balance_state_bytes(b->classes));
  if (b->rule == TARE_GRADIENT_RULE_EQLV2 && b->gammas)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->gammas is %p with TARE_GRADIENT_RULE_EQLV2, which has none; leave it NULL",
                     (void *)b->gammas);
  if (action == TARE_GRADIENT_WEIGH && !b->positive_weights && !b->negative_weights && !b->gammas)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "balance->positive_weights, negative_weights and gammas are NULL; one of them must be float "
                     "[%lld]",
                     (long long)b->classes);
  return check_outputs(b, error);
}

static tare_status balance_gradients(tare_context *context, const tare_gradient_balance *theirs, int32_t action,
                                     const tare_class_sums *sums, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_error *error = &context->error;
  tare_gradient_step step = {.action = action, .sums = sums};
  if (!theirs) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "balance is NULL");
  tare_gradient_balance_init(&step.balance, TARE_GRADIENT_RULE_EQLV2, 1);
  tare_status status = tare_read_struct(&step.balance, theirs, &tare_gradient_balance_layout, error);
  if (!status) status = check_numbers(&step.balance, error);
  if (!status) status = check_pointers(&step.balance, action, error);
  return status ? status : context->backend->balance_gradients(context->backend, &step, stream, error);
}

tare_status tare_gradient_balance_weigh(tare_context *context, const tare_gradient_balance *balance,
                                        tare_stream stream) {
  return balance_gradients(context, balance, TARE_GRADIENT_WEIGH, NULL, stream);
}

tare_status tare_gradient_balance_collect(tare_context *context, const tare_gradient_balance *balance,
                                          const tare_class_sums *sums, tare_stream stream) {
  if (context && (!sums || (uintptr_t)sums % 8))
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT,
                     "sums is %p; it must be the class sums of an evaluation, aligned to 8 bytes", (const void *)sums);
  return balance_gradients(context, balance, TARE_GRADIENT_COLLECT, sums, stream);
}

tare_status tare_gradient_balance_step(tare_context *context, const tare_gradient_balance *balance,
                                       tare_stream stream) {
  return balance_gradients(context, balance, TARE_GRADIENT_STEP, NULL, stream);
}
