/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmdetection's GHMC and GHMR (mmdet/models/losses/ghm_loss.py): its tensor expressions as loops in double.
 */
#include "mmdet.h"

#include <math.h>
#include <stdlib.h>

/* edges = arange(bins + 1) / bins in single precision, the last one moved out of reach. */
static double edge(const struct mmdet_module *module, int i) {
  if (i < module->bins) return (float)i / (float)module->bins;
  return module->mu > 0 ? 1e3 : (double)(1.0f + 1e-6f);
}

static double norm(const struct mmdet_module *module, double pred, double target) {
  double diff = pred - target;
  if (module->mu > 0) return fabs(diff / sqrt(module->mu * module->mu + diff * diff));
  return fabs(1 / (1 + exp(-pred)) - target);
}

/* GHMC: the number of valid elements. GHMR: the sum of the label weights. */
static double total(const struct mmdet_module *module, int64_t n, const double *label_weight) {
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += module->mu > 0 ? label_weight[j] : label_weight[j] > 0;
  return sum > 1 ? sum : 1;
}

/* One turn of `for i in range(self.bins)`: weights[inds] = tot / (acc_sum[i] or num_in_bin). Returns whether the bin
 * held anything. */
static int weigh_bin(struct mmdet_module *module, int i, int64_t n, const double *g, const double *label_weight,
                     double tot, double *weights) {
  int64_t num_in_bin = 0;
  for (int64_t j = 0; j < n; ++j)
    num_in_bin += g[j] >= edge(module, i) && g[j] < edge(module, i + 1) && label_weight[j] > 0;
  if (num_in_bin == 0) return 0;
  double divisor = (double)num_in_bin;
  if (module->momentum > 0) {
    module->acc_sum[i] = module->momentum * module->acc_sum[i] + (1 - module->momentum) * (double)num_in_bin;
    divisor = module->acc_sum[i];
  }
  for (int64_t j = 0; j < n; ++j)
    if (g[j] >= edge(module, i) && g[j] < edge(module, i + 1) && label_weight[j] > 0) weights[j] = tot / divisor;
  return 1;
}

/* binary_cross_entropy_with_logits, or the authentic smooth L1, and its derivative by pred. */
static double element_loss(const struct mmdet_module *module, double pred, double target, double *derivative) {
  double diff = pred - target;
  if (module->mu > 0) {
    double root = sqrt(diff * diff + module->mu * module->mu);
    *derivative = diff / root;
    return root - module->mu;
  }
  *derivative = 1 / (1 + exp(-pred)) - target;
  return fmax(pred, 0) - pred * target + log1p(exp(-fabs(pred)));
}

double mmdet_forward(struct mmdet_module *module, int64_t n, const double *pred, const double *target,
                     const double *label_weight, double *gradient) {
  double *g = calloc((size_t)n, sizeof *g);
  double *weights = calloc((size_t)n, sizeof *weights);
  if (!g || !weights) abort();
  for (int64_t j = 0; j < n; ++j) g[j] = norm(module, pred[j], target[j]);
  double tot = total(module, n, label_weight);
  int non_empty = 0;
  for (int i = 0; i < module->bins; ++i) non_empty += weigh_bin(module, i, n, g, label_weight, tot, weights);
  double loss = 0;
  for (int64_t j = 0; j < n; ++j) {
    double weight = non_empty > 0 ? weights[j] / non_empty : weights[j];
    double derivative;
    loss += weight * element_loss(module, pred[j], target[j], &derivative) / tot;
    gradient[j] = weight * derivative / tot;
  }
  free(g);
  free(weights);
  return loss;
}
