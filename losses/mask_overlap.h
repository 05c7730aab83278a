/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dice, Tversky and focal Tversky of a mask, from its sums: the loss, and what its gradient needs of it. In double, for
 * both backends. Not a header of its own: the includer defines TARE_INLINE and includes <math.h> and
 * losses/mask_sums.h. losses/mask_pixel.h has the pixels.
 */

/** With N and D over T = N/D and E = D-N: dT/dp = (dN*D - N*dD)/D^2, so d(1-T)/dp = (N*dE - E*dN)/D^2. E is a sum of
 *  what is not negative, so nothing cancels. D^2 may underflow where N/D and 1/D do not. */
TARE_INLINE tare_overlap tare_overlap_of(const tare_mask_partial *sums, const tare_overlap_setting *setting) {
  const double misses = setting->false_positive_weight * sums->false_positives +
                        setting->false_negative_weight * sums->false_negatives +
                        (setting->denominator_smoothing - setting->numerator_smoothing);
  const double hits = sums->true_positives + setting->numerator_smoothing, all = hits + misses;
  tare_overlap result = {0, 0, 0, 0, 0};
  if (all == 0 || misses == 0) return result;
  const double rest = misses / all, by_misses = hits / all / all, by_hits = rest / all;
  const double times = setting->squared ? 2 : 1;
  result.of_zeros = times * setting->false_positive_weight * by_misses;
  result.of_ones = times * setting->false_negative_weight * by_misses + (setting->squared ? 0 : by_hits);
  result.of_hits = setting->squared ? by_hits : 0;
  const double larger = result.of_zeros > result.of_ones ? result.of_zeros : result.of_ones;
  const double largest = larger > result.of_hits ? larger : result.of_hits;
  const double unit = largest > 0 ? 1 / largest : 1;
  result.of_zeros *= unit;
  result.of_ones *= unit;
  result.of_hits *= unit;
  const double power = setting->exponent == 1 ? 1 : exp((setting->exponent - 1) * log(rest));
  result.loss = power * rest;
  result.factor = setting->exponent * power * largest;
  if (all == all) return result;
  const tare_overlap unknown = {all, all, 1, 1, 1}; /* NaN; a pixel that does not count still has a gradient of 0 */
  return unknown;
}

/** `weights`: of mask, overlap and focal loss. */
TARE_INLINE tare_mask_result tare_mask_result_of(const tare_mask_partial *sums, const tare_overlap_setting *setting,
                                                 double weight, double overlap_weight, double focal_weight) {
  tare_mask_result result = {{0, 0, 0, 0, 0}, 0, 0, 0, INT64_MAX};
  result.counts = sums->pixels > 0;
  if (!result.counts || weight == 0) return result;
  result.first_invalid = sums->first_invalid;
  result.counts = sums->first_invalid == INT64_MAX;
  if (!result.counts) return result;
  result.overlap = tare_overlap_of(sums, setting);
  result.overlap.loss *= weight;
  result.overlap.factor = overlap_weight == 0 ? 0 : result.overlap.factor * weight * overlap_weight;
  if (focal_weight == 0) return result;
  result.mean_focal = weight * (sums->focal / (double)sums->pixels);
  result.focal_factor = weight * focal_weight / (double)sums->pixels;
  return result;
}
