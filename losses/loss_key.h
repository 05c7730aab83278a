/* SPDX-License-Identifier: Apache-2.0 */
/* Hard negative mining and OHEM, for both backends: how many rows are taken, and the order of their losses. The larger
 * loss has the larger key, and NaN the largest. TARE_INLINE comes from the includer, and so does ceil(). */
#include <stdint.h>
#include <string.h>

enum { TARE_DIGIT_BITS = 8, TARE_DIGITS = 1 << TARE_DIGIT_BITS };

TARE_INLINE uint32_t tare_key_of_loss(float loss) {
  const float unsigned_zero = loss + 0.0f; /* -0 ties with 0 */
  uint32_t bits;
  memcpy(&bits, &unsigned_zero, sizeof bits);
  if (loss != loss) return UINT32_MAX;
  return bits >> 31 ? ~bits : bits | UINT32_C(0x80000000);
}

/** Whether the digits above `shift` and its own are those of `prefix`. The first digit has none above it. */
TARE_INLINE int tare_key_has_prefix(uint32_t key, uint32_t prefix, int shift) {
  const int above = shift + TARE_DIGIT_BITS;
  return above >= 32 || key >> above == prefix >> above;
}

/** The number of an image's negatives that are taken. Counts of rows are exact in double. */
TARE_INLINE int64_t tare_negatives_taken(double ratio, int64_t minimum, double positives, double negatives) {
  const double by_ratio = ceil(ratio * positives);
  const double wanted = by_ratio > (double)minimum ? by_ratio : (double)minimum;
  return (int64_t)(wanted < negatives ? wanted : negatives);
}

/** The number of rows that OHEM takes of those that count: `count`, or if that is 0 a fraction. */
TARE_INLINE int64_t tare_rows_taken(int64_t count, double fraction, double counted) {
  const double wanted = count > 0 ? (double)count : ceil(fraction * counted);
  return (int64_t)(wanted < counted ? wanted : counted);
}
