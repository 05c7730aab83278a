/* SPDX-License-Identifier: Apache-2.0 */
/* The divisor that follows from counts and sums, for both backends. TARE_INLINE comes from the includer. Counts of rows
 * are exact in double. */

/** What the normalizers that count rows give. */
TARE_INLINE tare_normalizer_sums tare_sums_of_rows(int32_t family, int64_t classes, double counted, double positives,
                                                   double weights) {
  tare_normalizer_sums sums = {0, 0, 0, 0, 0, 0, {0, 0}};
  sums.elements = (family == TARE_LOSS_FAMILY_SOFTMAX ? 1.0 : (double)classes) * counted;
  sums.rows = counted;
  sums.positives = positives;
  sums.weights = weights;
  return sums;
}

/** Of a normalizer that is formed from the batch; 1 where nothing counts, and for the other normalizers. */
TARE_INLINE double tare_divisor_of_sums(int32_t normalizer, const tare_normalizer_sums *sums, double addend,
                                        double minimum) {
  double sum = 1;
  if (normalizer == TARE_NORMALIZER_ELEMENTS) sum = sums->elements;
  if (normalizer == TARE_NORMALIZER_ROWS) sum = sums->rows;
  if (normalizer == TARE_NORMALIZER_POSITIVES) sum = sums->positives;
  if (normalizer == TARE_NORMALIZER_WEIGHTS) sum = sums->weights;
  if (normalizer == TARE_NORMALIZER_TARGETS) sum = sums->targets;
  if (normalizer == TARE_NORMALIZER_ONES) sum = sums->ones;
  sum += addend;
  if (sum < minimum) sum = minimum;
  return sum == 0 ? 1 : sum;
}
