/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by ranks_mpi.c and ranks_nccl.c: a batch, the distribution of its rows over the ranks, and the comparison of
 * the ranks' results with those of one rank alone. It contains no communication. */
#ifndef TARE_EXAMPLES_RANKS_H
#define TARE_EXAMPLES_RANKS_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <tare.h>

enum { ROWS = 1203, CLASSES = 20, BINS = 30, STEPS = 3, STATE_WORDS = 2 + 3 * BINS };

/* The last rank is the odd one. A batch without any object is where clamping the divisor on every rank goes wrong. */
enum corner { EVEN, RANK_WITHOUT_OBJECTS, RANK_WITHOUT_ROWS, NO_OBJECTS, CORNERS };
static const char *const corner_names[] = {"even shares", "a rank without objects", "a rank without rows",
                                           "no object anywhere"};

struct share {
  int64_t first, rows;
};

static inline struct share share_of(enum corner corner, int rank, int ranks) {
  const int dealt = corner == RANK_WITHOUT_ROWS && ranks > 1 ? ranks - 1 : ranks;
  if (rank >= dealt) return (struct share){ROWS, 0};
  const int64_t first = (int64_t)ROWS * rank / dealt;
  return (struct share){first, (int64_t)ROWS * (rank + 1) / dealt - first};
}

/* Uniform in (0,1), from a 64-bit linear congruential generator: the same batch on every machine and rank. */
static inline double uniform(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return ((double)(*state >> 11) + 0.5) / 9007199254740992.0;
}

static inline double normal(uint64_t *state, double mean, double deviation) {
  const double radius = sqrt(-2 * log(uniform(state)));
  return mean + deviation * radius * cos(6.283185307179586 * uniform(state));
}

/* The whole batch of one step: background logits like a young detector's, moving a little from step to step, and an
 * object in one row of forty. */
static inline void fill(enum corner corner, int ranks, int step, float *logits, int32_t *labels) {
  uint64_t state = (uint64_t)step + 1;
  const struct share last = share_of(corner, ranks - 1, ranks);
  for (int64_t row = 0; row < ROWS; row++) {
    for (int64_t c = 0; c < CLASSES; c++) logits[row * CLASSES + c] = (float)normal(&state, -4.6 + 0.3 * step, 1.5);
    const int bare = corner == NO_OBJECTS || (corner == RANK_WITHOUT_OBJECTS && ranks > 1 && row >= last.first);
    labels[row] = uniform(&state) < 0.025 && !bare ? (int32_t)(uniform(&state) * CLASSES) : -1;
    if (labels[row] >= 0) logits[row * CLASSES + labels[row]] = (float)normal(&state, 0, 2);
  }
}

/* What comes out: of all ranks together, or of one that has the whole batch. */
struct outcome {
  double loss;
  int64_t words[STATE_WORDS];     /* the label counts, or the GHM state with its counts, momentum sums and 1/GD */
  float gradient[ROWS * CLASSES]; /* by the logits, row after row */
};

/* Elements are computed in the same way everywhere. Sums are cut at other places, and the divisor may be rounded
 * elsewhere. */
static const double loss_bound = 0x1p-20, gradient_bound = 0x1p-22; /* 4 units in the last place; both relative */

static inline void print_heading(int ranks, int reduced) {
  printf("%d rank%s, %d rows x %d classes%s. Counts agree to the last bit; loss within %.1e, gradient within %.1e.\n",
         ranks, ranks == 1 ? "" : "s", ROWS, CLASSES, reduced ? "" : ", WITHOUT the reduction over ranks", loss_bound,
         gradient_bound);
  printf("%-23s %-14s %4s  %-7s %12s %12s %10s %10s\n", "", "loss", "step", "counts", "ranks", "alone", "loss off",
         "grad. off");
}

/* One line of the table. Returns 1 if the two differ by more than rounding, else 0. */
static inline int compare(enum corner corner, int32_t kind, int step, const struct outcome *ranks,
                          const struct outcome *alone) {
  const int counts = memcmp(ranks->words, alone->words, sizeof ranks->words) == 0;
  const double loss_off = fabs(ranks->loss - alone->loss) / fmax(fabs(alone->loss), 1e-30);
  double gradient_off = 0;
  for (int i = 0; i < ROWS * CLASSES && !isnan(gradient_off); i++) {
    const double a = (double)ranks->gradient[i], b = (double)alone->gradient[i];
    const double off = fabs(a - b) / fmax(fabs(b), 1e-30);
    if (!(off <= gradient_off)) gradient_off = off; /* a NaN stays */
  }
  const int same = counts && loss_off <= loss_bound && gradient_off <= gradient_bound;
  printf("%-23s %-14s %4d  %-7s %12.6f %12.6f %10.1e %10.1e%s\n", corner_names[corner], tare_loss_name(kind), step,
         counts ? "equal" : "differ", ranks->loss, alone->loss, loss_off, gradient_off, same ? "" : "  DIFFERS");
  return !same;
}

#endif
