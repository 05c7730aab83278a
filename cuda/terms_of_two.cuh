/* SPDX-License-Identifier: Apache-2.0 */
/* terms_of for two logits at once. Not a header of its own: primitives.cuh includes it in each of its namespaces. */

/** Every term has the bits that terms_of gives it. */
TARE_INLINE void terms_of_two(float first, float second, terms (&t)[2]) {
  const two e = exp_nonpositive(two(-magnitude(first), -magnitude(second)));
  const two larger = reciprocal(two(1.0f) + e);
  const two smaller = smaller_part(e, larger), log1p_e = log1p_unit(e);
  t[0] = make_terms(first, larger.x, smaller.x, log1p_e.x);
  t[1] = make_terms(second, larger.y, smaller.y, log1p_e.y);
}
