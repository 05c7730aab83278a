/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmdetection's GHMC and GHMR modules, step by step as their forward() runs: a loop over the bins, masks, one running
 * sum per bin, the number of non-empty bins. A second opinion on the oracle's mmdetection variant.
 */
#ifndef TARE_TESTS_ORACLE_MMDET_H
#define TARE_TESTS_ORACLE_MMDET_H

#include <stdint.h>

/** A module. acc_sum starts at 0; mu > 0 makes it GHMR. */
struct mmdet_module {
  int bins;
  double momentum, mu;
  double acc_sum[1024];
};

/** forward(): pred, target, label_weight [n]. Returns the loss and fills the gradient by pred [n] (autograd's, with the
 *  weights detached). */
double mmdet_forward(struct mmdet_module *module, int64_t n, const double *pred, const double *target,
                     const double *label_weight, double *gradient);

#endif /* TARE_TESTS_ORACLE_MMDET_H */
