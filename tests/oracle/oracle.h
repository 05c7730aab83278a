/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The oracle: what every loss, gradient and count must be, in double precision, straight from the papers' formulas.
 * It shares no line and no type with the library, so that a mistake cannot stand on both sides of a comparison.
 * Scalar functions first, then one function for a whole batch of plain flat arrays.
 */
#ifndef TARE_TESTS_ORACLE_H
#define TARE_TESTS_ORACLE_H

#include <stddef.h>
#include <stdint.h>

/* ---- One sigmoid element ---------------------------------------------------------------------------------------
 * z is the signed logit of a hard target: +x where t = 1, -x where t = 0. Derivatives are by z (hard) or by x (soft);
 * for a hard negative d/dx = -d/dz. Weights and alpha are the caller's. Relative error below 1e-14 for every z,
 * except that soft derivatives near p = t carry an absolute error of that size. Infinite z: the limit. NaN: NaN. */

/** p = sigmoid(z), q = 1-p, l = -log p. Made once, used by every formula below. */
struct oracle_point {
  double p, q, l;
};
struct oracle_point oracle_point(double z);

/** A value and its derivative. */
struct oracle_pair {
  double value, derivative;
};

struct oracle_pair oracle_ce(struct oracle_point at);
struct oracle_pair oracle_focal(struct oracle_point at, double gamma);
/** epsilon*q^(gamma+1): what Poly-1 adds to the focal loss (alpha does not multiply it). */
struct oracle_pair oracle_poly1_extra(struct oracle_point at, double gamma, double epsilon);

/** The same for a soft target t, by the logit x; t exactly 0 or 1 takes the hard formula. */
struct oracle_pair oracle_soft_ce(double x, double t);
struct oracle_pair oracle_soft_focal(double x, double t, double gamma);
/** of_1*(-log p) + of_0*(-log(1-p)), by x. */
struct oracle_pair oracle_terms(double x, double of_1, double of_0);
struct oracle_pair oracle_soft_poly1_extra(double x, double t, double gamma, double epsilon);

/** A value, its derivative by x, and the factor that is a constant of the derivative (1: none is). */
struct oracle_detached {
  double value, derivative, factor;
};

/* Losses with a score t, without alpha. `given`: the factor that stands still while x moves; NaN: that of x. */

/** p^gamma*softplus(x): an element without a label. Its p^gamma is a constant of the derivative if `detached`. */
struct oracle_detached oracle_scored_negative(double x, double gamma, int detached, double given);
/** t*CE(x,t). */
struct oracle_pair oracle_varifocal_label(double x, double t);
/** |t-p|^beta*CE(x,t); the derivative is 0 where p = t. */
struct oracle_pair oracle_quality_focal(double x, double t, double beta);
/** CE(x,t^gamma). */
struct oracle_pair oracle_matchability_label(double x, double t, double gamma);
/** CE(x,max(p^a*t^(1-a),0.01)), whose target is the factor that is a constant of the derivative. */
struct oracle_detached oracle_iou_aware_label(double x, double t, double a, double given);

/* Losses of a target of exactly 0 or 1 (`one`), by the logit x. */

/** (p^gamma or (1-p)^gamma of the label)*CE(x,t) with t = one*(1-s) + s/2; `all`: the modulator is that of the soft
 *  target t. */
struct oracle_pair oracle_smoothed(double x, int one, double s, double gamma, int all);
/** Asymmetric loss with the gamma of this target. The modulator is a constant of the derivative if `detached`, and then
 *  the factor. */
struct oracle_detached oracle_asymmetric(double x, int one, double gamma, double margin, int detached, double given);
/** 1 where p_t is below the threshold, else ((1-p_t)/threshold)^gamma, times -log p_t. */
struct oracle_pair oracle_reduced(double x, int one, double gamma, double threshold);
/** -log sigmoid(gamma*z + shift)/gamma. */
struct oracle_pair oracle_star(double x, int one, double gamma, double shift);
/** An element of a map: a peak where t is 1. */
struct oracle_pair oracle_heatmap(double x, double t, double gamma, double beta);

/** t*alpha + (1-t)*(1-alpha); 1 where alpha is negative (off). */
double oracle_alpha(double alpha, double t);

/* ---- One softmax row ------------------------------------------------------------------------------------------- */

/** -log softmax(x)_y times q^gamma (gamma 0: cross-entropy). dx [classes] may be NULL. Infinities: as the library's
 *  manual says (one +inf off the label: loss +inf, finite gradient; several +inf or all -inf: NaN). */
double oracle_softmax_row(int64_t classes, const double *x, int64_t y, double gamma, double *dx);

/** Label smoothing of a row of several classes. `all`: the modulator is that of the smoothed target. */
struct oracle_smoothing {
  double s, gamma;
  int all;
};

/** q^gamma*sum t_k*(-log p_k), t_k = s/C and 1-s more at the label; with `all` (1 - sum t_k*p_k)^gamma instead. */
double oracle_smoothed_softmax_row(int64_t classes, const double *x, int64_t y, struct oracle_smoothing by, double *dx);

/** Adds factor*LSE^2, LSE = log sum e^(x+offset), to a row's loss, and 2*factor*LSE*p to its derivatives dx (or NULL).
 *  offset: [classes] or NULL. Returns the new loss. */
double oracle_add_z_loss(int64_t classes, const double *x, const double *offset, double factor, double loss,
                         double *dx);

/** -sum t_k log p_k, gradient (sum t)*p - t. A row with all its mass on one class takes the hard formula times the
 *  mass; a row of zeros gives 0 and zeros, whatever the logits. */
double oracle_soft_softmax_row(int64_t classes, const double *x, const double *t, double *dx);

/** The same of z = x + offset (arXiv 2007.07314, eq. 10). An offset of -inf takes its class out, whatever its logit is.
 *  offset [classes], or NULL. */
double oracle_adjusted_softmax_row(int64_t classes, const double *x, const double *offset, int64_t y, double gamma,
                                   double *dx);
double oracle_adjusted_soft_softmax_row(int64_t classes, const double *x, const double *offset, const double *t,
                                        double *dx);

/** Seesaw loss: -log softmax(x + log S)_y with S_j = M_j*C_j for j != y (arXiv 2008.10032, eq. 4 to 6). M_j = min(1,
 *  (n_j/n_y)^p), C_j = max(1, (p_j/max(p_y,eps))^q), p = softmax(x). dx: S is a constant. by: p, q, eps. log_counts:
 *  [classes] or NULL. */
double oracle_seesaw_row(int64_t classes, const double *x, const double *log_counts, int64_t y, const double by[3],
                         double *dx);

/** LDAM: -log softmax(z)_y with z = s*(x - margin_y*onehot(y)) (arXiv 1906.07413, section 3.2). margins: [classes] or
 *  NULL; +inf takes a class out. */
double oracle_ldam_row(int64_t classes, const double *x, const double *margins, double scale, int64_t y, double *dx);

/* ---- Class-balanced weights ------------------------------------------------------------------------------------ */

/** (1-beta^n)/(1-beta) for n >= 0, 0 <= beta < 1. */
double oracle_effective_number(double n, double beta);

/** Proportional to 1/E_n, summing to the number of classes present; 0 where counts[c] = 0. beta_per_class or NULL. */
void oracle_class_balanced(int64_t classes, const int64_t *counts, double beta, const double *beta_per_class,
                           double *weights);
/** The same for counts that are real numbers. */
void oracle_class_balanced_real(int64_t classes, const double *counts, double beta, const double *beta_per_class,
                                double *weights);

/** max_margin*(n_c/min n)^(-1/4), a count of 0 as 1. */
void oracle_ldam_margins(int64_t classes, const double *counts, double max_margin, double *margins);

/** tau*log(n_c/sum n), a count of 0 as 1. */
void oracle_logit_adjustment(int64_t classes, const double *counts, double tau, double *offset);

/* ---- GHM elements ---------------------------------------------------------------------------------------------- */

/** GHM-R's smooth L1 of d = prediction - target: sqrt(d^2+mu^2)-mu and its derivative by the prediction. */
struct oracle_pair oracle_asl1(double d, double mu);

/** Gradient norms: |sigmoid(x)-t| and |d|/sqrt(d^2+mu^2). */
double oracle_ghm_c_norm(double x, double t);
double oracle_ghm_r_norm(double d, double mu);

/** Lower edge k of `bins`: k/bins, or (float)(k/bins) in mmdetection's variant. */
double oracle_ghm_edge(int k, int bins, int mmdet);

/**
 * The bin: the largest k < bins with norm >= edge k; a NaN falls in bin 0. Hard targets (t exactly 0 or 1) compare the
 * signed logit u = -z with log(e/(1-e)) in long double, and GHM-R compares |d| with mu*e/sqrt(1-e^2), so no rounding of
 * the norm itself decides; what is too near for that is compared in MPFR. Ties belong to the upper bin; the logarithm
 * of a rational is irrational unless it is log 1, so for GHM-C the only tie is u = 0 at e = 1/2.
 */
int oracle_ghm_c_bin(double x, double t, int bins, int mmdet);
int oracle_ghm_r_bin(double d, double mu, int bins, int mmdet);

/* ---- A whole batch --------------------------------------------------------------------------------------------- */

struct oracle_problem;

/** An element, of a loss that goes over elements. */
struct oracle_element {
  double x, t;
  double of_alpha; /* t, or 1 for a label whatever its score is */
  double alpha;    /* of targets of 1; negative: off */
  double given;    /* the factor that is a constant of the derivative; NaN: that of x */
};

/** A row, of a loss that goes over rows. */
struct oracle_row {
  const double *x;      /* [classes] */
  const double *t;      /* [classes], or NULL: the label decides */
  const double *scores; /* of a loss of bins: its numbers, or NULL: the label decides */
  int64_t label;
  double alpha; /* of the label; negative: off */
};

/** What the oracle knows of a loss: one of the two formulas. */
struct oracle_loss {
  /** Loss and derivative by the logit, with alpha but no other weight. */
  struct oracle_detached (*element)(const struct oracle_problem *problem, struct oracle_element element);
  /** Loss, and derivatives dx [classes] by the logits, with alpha but no other weight. */
  double (*row)(const struct oracle_problem *problem, struct oracle_row row, double *dx);
  int has_density;   /* elements are weighted by the density of their gradient norms */
  int is_regression; /* logits are predictions, and columns are no classes */
  int has_peaks;     /* targets below 1 have no positive weight */
  int bins;          /* how many scores a row has, where they are targets between bins */
};

/** Each loss by the name that it has in the library's list. sigmoid.c and sides.c define those of elements, softmax.c
 *  and two_hot.c of rows. */
extern const struct oracle_loss ORACLE_SIGMOID_CE;
extern const struct oracle_loss ORACLE_SIGMOID_FOCAL;
extern const struct oracle_loss ORACLE_SIGMOID_POLY1;
extern const struct oracle_loss ORACLE_SIGMOID_VARIFOCAL;
extern const struct oracle_loss ORACLE_SIGMOID_QUALITY_FOCAL;
extern const struct oracle_loss ORACLE_SIGMOID_MATCHABILITY;
extern const struct oracle_loss ORACLE_SIGMOID_IOU_AWARE;
extern const struct oracle_loss ORACLE_SIGMOID_ASYMMETRIC;
extern const struct oracle_loss ORACLE_SIGMOID_HEATMAP_FOCAL;
extern const struct oracle_loss ORACLE_SIGMOID_REDUCED_FOCAL;
extern const struct oracle_loss ORACLE_SIGMOID_FOCAL_STAR;
extern const struct oracle_loss ORACLE_SOFTMAX_CE;
extern const struct oracle_loss ORACLE_SOFTMAX_FOCAL;
extern const struct oracle_loss ORACLE_SOFTMAX_LOGIT_ADJUSTED;
extern const struct oracle_loss ORACLE_SOFTMAX_SEESAW;
extern const struct oracle_loss ORACLE_SOFTMAX_DISTRIBUTION_FOCAL;
extern const struct oracle_loss ORACLE_SOFTMAX_LDAM;
extern const struct oracle_loss ORACLE_SOFTMAX_TWO_HOT;
extern const struct oracle_loss ORACLE_GHM_C;
extern const struct oracle_loss ORACLE_GHM_R;

enum oracle_normalizer {
  ORACLE_SUM,
  ORACLE_ELEMENTS,
  ORACLE_ROWS,
  ORACLE_POSITIVES,
  ORACLE_WEIGHTS,
  ORACLE_VALUE,
  ORACLE_TARGETS,
  ORACLE_ONES
};

#define ORACLE_MAX_BINS 1024
#define ORACLE_MAX_LEVELS 16

/** GHM's memory between steps; all zero is a fresh one. weights[k] is 1/GD of bin k, 0 where sums[k] is 0. */
struct oracle_ghm_state {
  int64_t steps; /* taken with momentum */
  int64_t total; /* N of the last histogram */
  int64_t counts[ORACLE_MAX_BINS];
  double sums[ORACLE_MAX_BINS];
  double weights[ORACLE_MAX_BINS];
};

/** Everything [rows, classes] or [rows] is contiguous, row-major. oracle_problem_init sets the defaults named here.
 *  A parameter of a loss has the name that the library's table of parameters gives it; losses share a name. */
struct oracle_problem {
  const struct oracle_loss *loss;
  int64_t rows, classes;
  const double *logits;  /* [rows, classes]; GHM-R: predictions */
  const int64_t *labels; /* [rows]; NULL only with targets */
  const double *targets; /* [rows, classes]; NULL: labels decide. Labels beside targets only mark ignored rows */
  double target_least, target_most; /* -1e-3, 1.001: beyond, or NaN, a target of an element that counts makes its row
                                       invalid, as an invalid label does; within, it is moved into [0,1]. Softmax:
                                       finite and not below 0. GHM-R: any */
  const double *scores; /* [rows], the target of the label's element; NULL: 1. Not read in rows without a class. Losses
                           of bins: [rows, bins], targets; invalid unless they are finite, and weights in [0,1e30] */
  double score_least, score_most;                      /* as of targets, for scores of elements that count */
  int64_t first_label, background_label, ignore_label; /* 0, -1, -2 */

  double alpha;                  /* negative: off; -1 */
  const double *alpha_per_class; /* [classes] instead of alpha, or NULL */
  double gamma;                  /* 2 */
  const double *gamma_per_class; /* [classes] instead of gamma, or NULL */
  double beta;                   /* 2; quality focal, heatmap focal */
  double epsilon;                /* Poly-1: the coefficient, 1; GHM: the window of the exact density, 0.1 */
  double p_exponent;             /* 0.25; IoU-aware */
  double label_smoothing;        /* 0 */
  double z_loss;                 /* 0; of softmax rows: factor of LSE^2 */
  int weighting;                 /* 0; 1: positive and negative weights are those of cross-entropy's two terms */
  int smoothed;                  /* 0; 1: alpha and the modulator are those of the smoothed target */
  double gamma_positive, gamma_negative, margin; /* 1, 4, 0.05; asymmetric */
  double threshold;                              /* 0.5; reduced focal */
  double steepness, shift;                       /* 2, 1; focal star */
  const double *offset;                          /* [classes]; logit-adjusted softmax */
  const double *log_counts;                      /* [classes]; Seesaw: log n of each class, or NULL: all alike */
  const double *margins;                         /* [classes]; LDAM's, or NULL: none */
  double scale;                                  /* 30; LDAM's s */
  double p, q;                                   /* 0.8, 2; Seesaw, whose eps is epsilon */
  double delta;                                  /* 0; of the largest target to the last bin */
  int modulator;                                 /* 0; 1: p^gamma is a constant of the gradient */
  int positives;                                 /* 0; varifocal: 1 where a label with score 0 is no negative */
  int bins;                                      /* 30; GHM-R: 10 */
  int density;                                   /* 0: unit regions; 1: exact */
  int variant;                                   /* 0: the paper's; 1: mmdetection's */
  int use_stored_density;                        /* 0; 1: use state->weights as they are */
  double momentum;                               /* 0 */
  double mu;                                     /* 0.02 */
  struct oracle_ghm_state *state;                /* read and updated; NULL: a fresh one each time */

  const double
      *factors; /* [rows, classes]: what detached factors are, as a result has them; NULL: those of the logits */

  const double *class_weights;               /* [classes] or NULL */
  double background_weight;                  /* 1 */
  const double *row_weights;                 /* [rows] or NULL */
  const double *element_weights;             /* [rows, classes] or NULL */
  const double *positive_weights;            /* [classes] or NULL */
  const double *negative_weights;            /* [classes] or NULL */
  const double *background_negative_weights; /* [classes], instead in rows without a class, or NULL */
  const unsigned char *counts; /* [rows, classes]: 0 where the class is masked for the row; NULL: nothing is masked */

  enum oracle_normalizer normalizer; /* ORACLE_SUM */
  double normalizer_value;           /* 1 */
  double normalizer_addend;          /* 0; added to what a normalizer is formed of */
  double normalizer_minimum;         /* 0; the least divisor that is formed */
  double gradient_scale;             /* 1 */

  int level_count; /* 0: one; of rows that follow each other */
  struct oracle_level {
    int64_t rows;
    double weight;  /* of its loss and gradient */
    double divisor; /* 0: the normalizer's */
  } levels[ORACLE_MAX_LEVELS];
  int scope_is_level; /* 0: a normalizer is formed of all rows; 1: of each level's */
};

void oracle_problem_init(struct oracle_problem *problem, const struct oracle_loss *loss, int64_t rows, int64_t classes);

/** Rows by what their label made of them. */
struct oracle_counts {
  int64_t rows, counted, positives, background, ignored, invalid;
};

/** factor*value, but 0 for a factor of 0, alpha's among them: nothing is left of a NaN or an infinity. */
double oracle_times(double factor, double value);

/** CE of a target with weights of its terms: positive*t*(-log p) + negative*(1-t)*(-log(1-p)). */
struct oracle_detached oracle_terms_element(const struct oracle_problem *problem, struct oracle_element element,
                                            double positive, double negative);

/** CE (gamma 0) or focal loss with label smoothing. */
struct oracle_detached oracle_smoothed_element(const struct oracle_problem *problem, struct oracle_element element,
                                               double gamma);

/** What the elements of one class come to: weighted, neither normalized nor scaled. t is the element's target. */
struct oracle_class_sums {
  double loss;     /* softmax: of rows with a label of the class */
  double positive; /* sum of t*|derivative by the logit| */
  double negative; /* sum of (1-t)*|derivative by the logit| */
  double count;    /* rows that count; softmax: those with a label of the class */
};

/** What each normalizer gives: of rows that count, whatever they weigh. */
struct oracle_normalizer_sums {
  double elements, rows, positives, weights;
  double targets; /* their sum, where each lies in [0,1] (softmax: is not below 0) after clamping */
  double ones;    /* how many are 1 */
};

/** Filled by oracle_evaluate, freed by oracle_result_free. */
struct oracle_result {
  double loss;    /* normalized */
  double divisor; /* what it was divided by */
  struct oracle_counts counts;
  struct oracle_normalizer_sums normalizer_sums;
  double level_loss[ORACLE_MAX_LEVELS];
  struct oracle_normalizer_sums level_sums[ORACLE_MAX_LEVELS];
  double *gradient;        /* [rows, classes], normalized and scaled */
  double *row_loss;        /* [rows], weighted, not normalized */
  double *element_loss;    /* [rows, classes], the same; softmax losses: NULL */
  double *factors;         /* [rows, classes], constants of the gradient, 1 where there are none; softmax: NULL */
  double *inverse_density; /* [rows, classes], GHM: 1/GD of each element, 0 where it does not count; else NULL */
  struct oracle_class_sums *class_sums; /* [classes]; left 0 with dense targets of a softmax loss, and for GHM-R */
  struct oracle_ghm_state ghm;          /* GHM with unit regions: the state after the call */
};

/** A row with an invalid label or target adds nothing and is counted, as on a GPU. Arguments are not checked; memory
 *  failure aborts. */
void oracle_evaluate(const struct oracle_problem *problem, struct oracle_result *result);
void oracle_result_free(struct oracle_result *result);

/** What a label makes of its row. */
enum oracle_row_kind { ORACLE_POSITIVE, ORACLE_BACKGROUND, ORACLE_IGNORED, ORACLE_INVALID };
enum oracle_row_kind oracle_row_kind(const struct oracle_problem *problem, int64_t label);

/** The labels alone: counts as for a sigmoid loss, and per_class [classes] (or NULL), background left out. */
struct oracle_counts oracle_label_counts(const struct oracle_problem *problem, int64_t *per_class);

#endif /* TARE_TESTS_ORACLE_H */
