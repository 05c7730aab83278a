/* SPDX-License-Identifier: Apache-2.0 */
/* Keys in double, which need no guess: those of dense targets, |difference| of GHM-R, and keys of the exact
 * density. Bins are found by bisection. */

/** The largest k < count with lower[k] <= key, 0 for NaN. No branch: half of them would be guessed wrong. */
static inline int32_t tare_bin_by_bisection(const double *lower, int32_t count, double key) {
  int32_t low = 0;
  for (int32_t length = count; length > 1; length -= length / 2) low += key >= lower[low + length / 2] ? length / 2 : 0;
  return low;
}

/** A NaN counts as the least key there is. */
static inline double tare_key_or_least(double key, double least) { return key == key ? key : least; }

/** The bits of a key in an order that unsigned integers have: -inf, ..., +inf. */
static inline uint64_t tare_ordered_bits(double key) {
  uint64_t bits;
  memcpy(&bits, &key, sizeof bits);
  return bits ^ (bits >> 63 ? UINT64_MAX : UINT64_C(1) << 63);
}
