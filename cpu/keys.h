/* SPDX-License-Identifier: Apache-2.0 */
/* Keys in double, which need no guess: g of soft targets, |difference| of GHM-R, and all keys of the exact density.
 * Bins and positions are found by bisection. */

/** The largest k with lower[k] <= key, 0 for NaN. */
static inline int32_t tare_bin_by_bisection(const tare_bins *bins, double key) {
  int32_t low = 0, high = bins->count;
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    if (key >= bins->lower_f64[middle])
      low = middle;
    else
      high = middle;
  }
  return low;
}

/** A NaN counts as the least key there is. */
static inline double tare_key_or_least(double key, double least) { return key == key ? key : least; }

/** 1/GD of a key of the exact density: that of its place among the sorted keys, for NaN the first. */
static inline double tare_exact_weight(const tare_job *job, double key) {
  int64_t low = 0, high = job->key_count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (job->sorted_key[middle] <= key)
      low = middle;
    else
      high = middle;
  }
  return job->key_count ? job->key_weight[low] : 0.0;
}
