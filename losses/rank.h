/* SPDX-License-Identifier: Apache-2.0 */
/* The order of row losses in a selection, for both backends: the larger loss has the larger rank, and NaN the largest.
 * TARE_INLINE comes from the includer. */
#include <stdint.h>
#include <string.h>

enum { TARE_RANK_BITS = 8, TARE_RANK_DIGITS = 1 << TARE_RANK_BITS };

TARE_INLINE uint32_t tare_rank_of_loss(float loss) {
  const float unsigned_zero = loss + 0.0f; /* -0 ties with 0 */
  uint32_t bits;
  memcpy(&bits, &unsigned_zero, sizeof bits);
  if (loss != loss) return UINT32_MAX;
  return bits >> 31 ? ~bits : bits | UINT32_C(0x80000000);
}

/** Whether the digits above `shift` and its own are those of `prefix`. The first digit has none above it. */
TARE_INLINE int tare_rank_has_prefix(uint32_t rank, uint32_t prefix, int shift) {
  const int above = shift + TARE_RANK_BITS;
  return above >= 32 || rank >> above == prefix >> above;
}
