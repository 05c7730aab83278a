/* SPDX-License-Identifier: Apache-2.0 */
/* Loops of focal loss with an exponent of each class. */

/** The derivative is formed if nobody wants it, too: gcc's baseline vectorises no store under a condition. */
static void columns_of_hard(real factor, const stretch *on) {
  const real *x = on->x, *weight = on->weight;
  const real *restrict gamma = on->gamma;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid columns hard */
    const real w = weight[i];
    const pair value = focal_with_gamma(terms_of(-x[i]), gamma[i], 0, gamma[i]);
    loss[i] = w != 0 ? w * value.loss : (real)0;
    derivative[i] = w != 0 ? w * value.derivative * factor : (real)0;
  }
}

static void columns_of_soft(const element_task *task, real factor, const stretch *on) {
  formula_parameters p = task->parameters;
  const real *x = on->x, *weight = on->weight;
  const real *restrict target = on->target, *restrict gamma = on->gamma;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
  p.gamma_lo = 0;
  for (int32_t i = 0; i < n; i++) {
    const real w = weight[i], t = target[i];
    const int is_end = (t == 0) | (t == 1);
    p.gamma_hi = gamma[i];
    const pair hard = focal_with_gamma(terms_of(t == 1 ? x[i] : -x[i]), gamma[i], 0, gamma[i]);
    const pair between = sigmoid_focal_soft(x[i], t, w, w, &p, TARE_POWER_GENERAL);
    const real by_x = t == 1 ? 0 - w * hard.derivative * factor : w * hard.derivative * factor;
    loss[i] = w == 0 ? (real)0 : is_end ? w * hard.loss : between.loss;
    derivative[i] = w == 0 ? (real)0 : is_end ? by_x : between.derivative * factor;
  }
}

static void loops_of_columns(const element_task *task, real factor, const stretch *on) {
  if (task->is_soft)
    columns_of_soft(task, factor, on);
  else
    columns_of_hard(factor, on);
}
