/* SPDX-License-Identifier: Apache-2.0 */
/* The divisor that follows from counted rows, for both backends. TARE_INLINE comes from the includer. Counts of rows
 * are exact in double. */

/** Of a normalizer that counts rows; 1 where nothing counts, and for the other normalizers. */
TARE_INLINE double tare_counted_divisor(int32_t normalizer, int32_t family, int64_t classes, double counted,
                                        double positives, double weights) {
  double divisor = 1;
  if (normalizer == TARE_NORMALIZER_ELEMENTS)
    divisor = (family == TARE_LOSS_FAMILY_SOFTMAX ? 1.0 : (double)classes) * counted;
  if (normalizer == TARE_NORMALIZER_ROWS) divisor = counted;
  if (normalizer == TARE_NORMALIZER_POSITIVES) divisor = positives;
  if (normalizer == TARE_NORMALIZER_WEIGHTS) divisor = weights;
  return divisor == 0 ? 1 : divisor;
}
