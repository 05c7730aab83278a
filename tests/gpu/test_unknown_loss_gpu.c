/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loss that the kernels do not know is an error, and no other loss. Callers cannot ask for one, so this asks the
 * backend itself, in the family of each loss of the list.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "core/backend.h"
#include "support/problem.h"

static tare_status evaluate_unknown(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                    const tare_output *output, void *user) {
  static tare_problem checked;
  const int32_t *kind = user;
  tare_status status = tare_problem_build(&checked, loss, batch, output, TARE_NEED_LOGITS, &context->error);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", context->error.text);
  checked.loss.kind = *kind;
  tare_plan plan;
  tare_plan_make(&plan, &checked, 0, NULL);
  return context->backend->evaluate(context->backend, &plan, NULL, &context->error);
}

static void check_refused(const test_device *device, int32_t listed, int32_t unknown) {
  problem *p = problem_new(listed, TARE_DTYPE_F32, 12, 5);
  p->call = evaluate_unknown;
  p->user = &unknown;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_CUDA_ERROR, "%s as loss %d: %s", problem_text(p), (int)unknown,
               tare_status_name(o->status));
  cr_assert_not_null(strstr(o->text, "cudaErrorInvalidValue"), "%s", o->text);
  outcome_free(o);
  problem_free(p);
}

Test(unknown_loss_gpu, no_kernel_takes_it) {
  FOR_EACH_GPU(device) {
    for (int32_t i = 0; i < listed_losses(); i++) check_refused(device, listed_loss(i), 99);
  }
}

/* A loss of another family has no kernel either. */
Test(unknown_loss_gpu, nor_one_of_another_family) {
  FOR_EACH_GPU(device) {
    check_refused(device, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE);
    check_refused(device, TARE_LOSS_SOFTMAX_CE, TARE_LOSS_SIGMOID_CE);
    check_refused(device, TARE_LOSS_GHM_C, TARE_LOSS_SIGMOID_CE);
    check_refused(device, TARE_LOSS_GHM_R, TARE_LOSS_GHM_C);
    check_refused(device, TARE_LOSS_SIGMOID_CE, TARE_LOSS_GHM_C);
  }
}
