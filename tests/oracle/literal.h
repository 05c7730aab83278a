/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The textbook formulas, letter for letter, in MPFR with thousands of bits: log(sigmoid), 1-p and p-t as the papers
 * print them, cancellation and all. Derivatives are central differences of the value at that precision, so that no
 * derived formula takes part. Finite arguments only.
 */
#ifndef TARE_TESTS_ORACLE_LITERAL_H
#define TARE_TESTS_ORACLE_LITERAL_H

#include "oracle.h"

/** s^gamma*CE + epsilon*s^(gamma+1), CE = -t*log p - (1-t)*log(1-p), s = p*(1-t) + (1-p)*t; derivative by x. */
struct oracle_pair literal_sigmoid(double x, double t, double gamma, double epsilon);

/** -of_1*log p - of_0*log(1-p), by x. */
struct oracle_pair literal_terms(double x, double of_1, double of_0);

/** t*CE where t > 0; p^gamma*CE where t = 0. `detached`: p^gamma is a constant of the derivative, which is by x. */
struct oracle_pair literal_varifocal(double x, double t, double gamma, int detached);

/** Losses of an element with a score t; derivative by x. What is detached is that of x, and is not moved.
 *  |t-p|^beta*CE(x,t); CE(x,t^gamma); CE(x,max(p^a*t^(1-a),0.01)), whose target is detached. */
struct oracle_pair literal_quality_focal(double x, double t, double beta);
struct oracle_pair literal_matchability(double x, double t, double gamma);
struct oracle_pair literal_iou_aware(double x, double t, double a);

/** What losses by the side of their target take. */
struct literal_sides {
  double gamma, smoothing, margin, threshold, shift, beta;
  int all;      /* smoothing: the modulator's target is smoothed too */
  int detached; /* asymmetric: the modulator is that of x, and is not moved */
};

/** A target of 1 (`one`) or 0 of losses by the side of their target; derivative by x. CE and focal: smoothed. */
struct oracle_pair literal_side(const struct oracle_loss *loss, double x, int one, struct literal_sides sides);
/** An element of a heatmap with target t. */
struct oracle_pair literal_heatmap(double x, double t, double gamma, double beta);

/** sum over k of -t_k*(1-p_k)^gamma*log p_k with p = softmax(x); dx [classes]. */
double literal_softmax(int64_t classes, const double *x, const double *t, double gamma, double *dx);

/** The same of logits x + offset. */
double literal_adjusted_softmax(int64_t classes, const double *x, const double *offset, const double *t, double gamma,
                                double *dx);

/** (log sum e^x)^2. */
double literal_squared_lse(int64_t classes, const double *x, double *dx);

/** m^gamma*sum t_k*(-log p_k), t_k = s/C and 1-s more at the label; m = 1 - p of the label, or 1 - sum t_k*p_k. */
double literal_smoothed_softmax(int64_t classes, const double *x, int64_t label, struct oracle_smoothing by,
                                double *dx);

/** tau*log(n_c/sum n) of class c, a count of 0 as 1. */
double literal_logit_adjustment(int64_t classes, const double *counts, double tau, int64_t c);

/** sqrt(d^2+mu^2)-mu; derivative by d. */
struct oracle_pair literal_asl1(double d, double mu);

/** |sigmoid(x)-t| and |d|/sqrt(d^2+mu^2), and the last k < bins with norm >= k/bins (mmdet: >= (float)(k/bins)). */
double literal_ghm_c_norm(double x, double t);
double literal_ghm_r_norm(double d, double mu);
int literal_ghm_c_bin(double x, double t, int bins, int mmdet);
int literal_ghm_r_bin(double d, double mu, int bins, int mmdet);

/** (1-beta^n)/(1-beta). */
double literal_effective_number(double n, double beta);

#endif /* TARE_TESTS_ORACLE_LITERAL_H */
