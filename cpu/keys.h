/* SPDX-License-Identifier: Apache-2.0 */
/* Keys in double, which need no guess: those of dense targets, |difference| of GHM-R, and all keys of the exact
 * density. Bins and positions are found by bisection. */

/** The largest k < count with lower[k] <= key, 0 for NaN. No branch: half of them would be guessed wrong. */
static inline int32_t tare_bin_by_bisection(const double *lower, int32_t count, double key) {
  int32_t low = 0;
  for (int32_t length = count; length > 1; length -= length / 2) low += key >= lower[low + length / 2] ? length / 2 : 0;
  return low;
}

/** A NaN counts as the least key there is. */
static inline double tare_key_or_least(double key, double least) { return key == key ? key : least; }

/** Places of n keys among the sorted ones: of the last that is not above it, for NaN the first. All keys take a level
 *  before any takes the next, so that memory is waited for by many of them at a time. */
static inline void tare_find_places(const tare_sorted_keys *sorted, int32_t n, const double *key, int64_t *place) {
  for (int32_t i = 0; i < n; i++) place[i] = 0;
  for (int32_t l = sorted->levels - 1; l >= 0; l--) {
    const double *level = sorted->level[l];
    for (int32_t i = 0; i < n; i++) {
      int64_t at = place[i] * TARE_KEY_STEP, length = sorted->count[l] - at;
      for (length = length < TARE_KEY_STEP ? length : TARE_KEY_STEP; length > 1; length -= length / 2)
        at += length / 2 * (level[at + length / 2] <= key[i]); /* no branch: half of them would be guessed wrong */
      place[i] = at;
      __builtin_prefetch(l ? sorted->level[l - 1] + at * TARE_KEY_STEP + TARE_KEY_STEP / 2 : sorted->weight + at);
    }
  }
}

/** 1/GD of n <= TARE_BLOCK keys. */
static inline void tare_weigh_keys(const tare_job *job, int32_t n, const double *key, int64_t *place,
                                   double *inverse_density) {
  if (job->density == TARE_DENSITY_USE_EXACT) {
    tare_find_places(&job->sorted, n, key, place);
    for (int32_t i = 0; i < n; i++) inverse_density[i] = job->sorted.count[0] ? job->sorted.weight[place[i]] : 0.0;
  } else {
    const tare_bins *bins = job->bins;
    for (int32_t i = 0; i < n; i++)
      inverse_density[i] = bins->weight_f64[tare_bin_by_bisection(bins->lower_f64, bins->count, key[i])];
  }
}
