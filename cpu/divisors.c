/* SPDX-License-Identifier: Apache-2.0 */
/* Divisors, gradient scales and losses: of the batch, or of each level. */
#include <float.h>
#include <math.h>

#include "backend.h"
#include "core/divide.h"
#include "core/levels.h"

#define TARE_INLINE static inline
#include "core/divisor.h"

/** What the normalizers give for rows that have been scanned. */
static tare_normalizer_sums sums_of_scan(const tare_problem *problem, const tare_label_scan *scan) {
  tare_normalizer_sums sums = tare_sums_of_rows(problem->family, problem->batch.classes, (double)scan->counts.counted,
                                                (double)scan->counts.positives, scan->weights);
  sums.targets = scan->targets;
  sums.ones = scan->ones;
  if (tare_counts_elements(problem)) sums.elements = (double)scan->elements;
  return sums;
}

void tare_cpu_write_sums(const tare_problem *problem, const tare_scans *scans) {
  tare_normalizer_sums *to = problem->output.normalizer_sums;
  const int by_level = tare_has_scope_level(problem);
  if (!to) return;
  if (!by_level) *to = sums_of_scan(problem, &scans->all);
  for (int level = 0; by_level && level < problem->level_count; level++)
    to[level] = sums_of_scan(problem, &scans->of_level[level]);
}

double tare_cpu_divisor(const tare_problem *problem, const tare_label_scan *scan) {
  const tare_output *output = &problem->output;
  if (output->normalizer == TARE_NORMALIZER_VALUE)
    return output->normalizer_pointer ? *output->normalizer_pointer : output->normalizer_value;
  if (output->normalizer == TARE_NORMALIZER_SUM) return 1;
  const tare_normalizer_sums sums = sums_of_scan(problem, scan);
  return tare_divisor_of_sums(output->normalizer, &sums, output->normalizer_addend, output->normalizer_minimum);
}

/** Whether the kernels can multiply by it: float's range, but double's for logits in f64 and for GHM-R. */
static int is_ordinary(const tare_problem *problem, double factor) {
  if (problem->batch.dtype == TARE_DTYPE_F64 || problem->family == TARE_LOSS_FAMILY_REGRESSION) return isfinite(factor);
  return factor == 0 || (fabs(factor) >= FLT_MIN && fabs(factor) <= FLT_MAX);
}

tare_gradient_scale tare_cpu_gradient_scale(const tare_problem *problem, double scale, double divisor) {
  const double factor = tare_divide(scale, divisor);
  if (is_ordinary(problem, factor)) return (tare_gradient_scale){.factor = factor};
  return (tare_gradient_scale){.factor = 1, .after = 1, .scale = scale, .divisor = divisor};
}

double tare_cpu_scale(const tare_output *output) {
  const float *scale = output->gradient_scale_pointer;
  return output->gradient_scale * (scale ? (double)*scale : 1.0);
}

void tare_cpu_divide(const tare_problem *problem, const tare_scans *scans, tare_cpu_divisors *divisors) {
  const double scale = tare_cpu_scale(&problem->output), of_batch = tare_cpu_divisor(problem, &scans->all);
  for (int i = 0; i < problem->level_count; i++) {
    const tare_level_scalars *level = &problem->scalars[i];
    double divisor = tare_has_scope_level(problem) ? tare_cpu_divisor(problem, &scans->of_level[i]) : of_batch;
    if (level->divisor != 0) divisor = level->divisor;
    if (level->divisor_pointer) divisor = *level->divisor_pointer;
    divisors->of_level[i] = divisor;
    divisors->gradient[i] = tare_cpu_gradient_scale(problem, scale * level->weight, divisor);
  }
}

void tare_cpu_write_loss(int32_t dtype, double loss, void *to) {
  if (to && dtype == TARE_DTYPE_F64) *(double *)to = loss;
  if (to && dtype == TARE_DTYPE_F32) *(float *)to = (float)loss;
}

double tare_cpu_write_levels(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                             const tare_cpu_divisors *divisors) {
  double all = 0;
  for (int i = 0; i < problem->level_count; i++) {
    const double sum = tare_cpu_sum_of_level(cpu, tiling, i);
    const double loss = problem->scalars[i].weight * tare_divide(sum, divisors->of_level[i]);
    tare_cpu_write_loss(problem->output.loss_dtype, loss, problem->scalars[i].loss);
    all += loss;
  }
  return all;
}
