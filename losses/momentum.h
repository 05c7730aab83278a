/* SPDX-License-Identifier: Apache-2.0 */
/* Steps, and the momentum-averaged count S of one bin. The paper's first step takes the counts. mmdetection's sums
 * start at 0, and those of empty bins do not change. For C and CUDA: the includer defines TARE_INLINE. */

TARE_INLINE double tare_momentum_sum(const tare_ghm_parameters *ghm, int first_step, double sum, double count) {
  const double m = ghm->momentum;
  if (m == 0.0) return count;
  if (ghm->variant == TARE_GHM_VARIANT_MMDET) return count > 0 ? m * sum + (1 - m) * count : sum;
  return first_step ? count : m * sum + (1 - m) * count;
}

/** The next number of steps. A number below 0, which no call writes, counts as 0. The largest number stays. */
TARE_INLINE int64_t tare_next_step(int64_t steps) { return steps <= 0 ? 1 : steps < INT64_MAX ? steps + 1 : steps; }
