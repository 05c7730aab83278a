/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running counts of positives and the class-balanced weights that follow from them, one class at a time, for both
 * backends. Not a header of its own: the includer defines TARE_INLINE.
 */

/** A running count as it is used: nothing of one that is negative or not finite, or too small to divide by. */
TARE_INLINE double tare_sound_count(double n) { return n >= 1e-30 && n <= 1e300 ? n : 0.0; }

/** After a step in which `more` rows had the class. */
TARE_INLINE double tare_next_count(double n, int64_t more, double decay) {
  return tare_sound_count(decay * tare_sound_count(n) + (more > 0 ? (double)more : 0.0));
}

/** The logarithm of a count that is at least 1. */
TARE_INLINE float tare_log_of_count(double n) { return n > 1.0 ? (float)log(n) : 0.0f; }

/** 1/E of a count that is at least `least`, up to the factor 1-beta; 0 of a class that was never seen. */
TARE_INLINE double tare_inverse_of_count(double n, double least, double log_beta) {
  const double count = n > least ? n : least;
  return count > 0.0 ? -1.0 / expm1(count * log_beta) : 0.0;
}
