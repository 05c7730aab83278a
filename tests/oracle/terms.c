/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross-entropy whose two terms have weights of their own: the pos_weight of PyTorch's
 * binary_cross_entropy_with_logits, and its like for targets of 0.
 */
#include "oracle.h"

struct oracle_pair oracle_terms(double x, double of_1, double of_0) {
  struct oracle_point at = oracle_point(x), mirrored = oracle_point(-x);
  return (struct oracle_pair){oracle_times(of_1, at.l) + oracle_times(of_0, mirrored.l),
                              oracle_times(of_0, at.p) - oracle_times(of_1, at.q)};
}

struct oracle_detached oracle_terms_element(const struct oracle_problem *problem, struct oracle_element e,
                                            double positive, double negative) {
  double s = problem->label_smoothing, t = e.t, rest = 1 - t, of_alpha = e.of_alpha;
  if (s > 0) {
    t = e.t == 1 ? 1 - s / 2 : s / 2;
    rest = e.t == 1 ? s / 2 : 1 - s / 2;
    if (problem->smoothed) of_alpha = t;
  }
  struct oracle_pair value = oracle_terms(e.x, positive * t, negative * rest);
  double alpha = oracle_alpha(e.alpha, of_alpha);
  return (struct oracle_detached){oracle_times(alpha, value.value), oracle_times(alpha, value.derivative), 1};
}
