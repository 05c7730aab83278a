/* SPDX-License-Identifier: Apache-2.0 */
/* A batch split over MPI ranks gives the loss and gradient that the whole batch gives on one: Tare counts, MPI adds up
 * the counts, Tare takes them back. Rank 0 also computes the whole batch alone and compares.
 *
 *   mpirun -np 3 ranks_mpi                        exit status 0 if nothing differs by more than rounding
 *   mpirun -np 3 ranks_mpi --without-reduction    without the all-reduce: exit status 1 */
#include <mpi.h>
#include <stdlib.h>

#include "ranks.h"

static int rank, ranks, reduce = 1;
static tare_context *context;

static void need(tare_status status) {
  if (status == TARE_STATUS_OK) return;
  fprintf(stderr, "rank %d: %s: %s\n", rank, tare_status_name(status), tare_error_text(context));
  MPI_Abort(MPI_COMM_WORLD, 2);
}

/* ---- The two things to know ---------------------------------------------------------------------------------------
 *
 * Here the gradients of the ranks are parts of one gradient, to be summed. Data-parallel training that *averages* over
 * W ranks (what PyTorch's DistributedDataParallel does) wants the global divisor divided by W: max(1, positives) / W.
 * GHM has no divisor to set. There output.gradient_scale = W does the same for the gradient. */

/* Positives: count, add up over the ranks, and only then clamp, once: a rank without objects adds a 0 and not a 1. */
static void focal(const tare_batch *batch, double *loss, tare_counts *counts) {
  tare_loss_spec focal;
  tare_output output;
  tare_loss_spec_init(&focal, TARE_LOSS_SIGMOID_FOCAL);
  tare_output_init(&output), output.loss = loss, output.loss_dtype = TARE_DTYPE_F64;

  need(tare_label_counts(context, batch, counts, NULL, NULL));
  if (reduce) MPI_Allreduce(MPI_IN_PLACE, counts, sizeof *counts / 8, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  output.normalizer = TARE_NORMALIZER_VALUE,
  output.normalizer_value = counts->positives > 1 ? (double)counts->positives : 1;
  need(tare_evaluate(context, &focal, batch, &output, NULL));
}

/* GHM: count gradient norms, add up N and the counts, then let every rank form the same density from them. The rest of
 * the state, momentum included, never travels: it follows from the counts. */
static void ghm(const tare_batch *batch, double *loss, int64_t *state) {
  tare_loss_spec ghm;
  tare_output output;
  tare_loss_spec_init(&ghm, TARE_LOSS_GHM_C);
  ghm.ghm.bins = BINS, ghm.ghm.momentum = 0.75, ghm.ghm.state = state;
  tare_output_init(&output), output.loss = loss, output.loss_dtype = TARE_DTYPE_F64;

  need(tare_ghm_histogram(context, &ghm, batch, NULL));
  if (reduce) MPI_Allreduce(MPI_IN_PLACE, state + 1, 1 + BINS, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  need(tare_ghm_density_update(context, &ghm, NULL));
  ghm.ghm.use_stored_density = 1;
  need(tare_evaluate(context, &ghm, batch, &output, NULL));
}

/* ---- The proof ------------------------------------------------------------------------------------------------- */

static float logits[ROWS * CLASSES], gradient[ROWS * CLASSES];
static int32_t labels[ROWS];
static struct outcome together, alone;

/* The whole batch, in one call each: TARE_NORMALIZER_POSITIVES, and a GHM state that tare_evaluate updates by
 * itself. */
static void evaluate_alone(int32_t kind, int64_t *state) {
  tare_level level;
  tare_batch batch;
  tare_loss_spec loss;
  tare_output output;
  tare_level_init_rows(&level, ROWS, CLASSES);
  level.logits = logits, level.labels = labels, level.gradient = alone.gradient;
  tare_batch_init(&batch), batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  tare_output_init(&output), output.loss = &alone.loss, output.loss_dtype = TARE_DTYPE_F64;
  if (kind == TARE_LOSS_GHM_C) {
    loss.ghm.bins = BINS, loss.ghm.momentum = 0.75, loss.ghm.state = state;
  } else {
    output.normalizer = TARE_NORMALIZER_POSITIVES, output.counts = (tare_counts *)(void *)alone.words;
  }
  need(tare_evaluate(context, &loss, &batch, &output, NULL));
  if (kind == TARE_LOSS_GHM_C) memcpy(alone.words, state, sizeof alone.words);
}

/* Losses of the ranks add up to the loss; rows of the gradient go where they belong. */
static void gather(enum corner corner, double loss) {
  int *counts = calloc((size_t)ranks, sizeof *counts), *places = calloc((size_t)ranks, sizeof *places);
  if (!counts || !places) MPI_Abort(MPI_COMM_WORLD, 2);
  for (int r = 0; r < ranks; r++) {
    counts[r] = (int)share_of(corner, r, ranks).rows * CLASSES;
    places[r] = (int)share_of(corner, r, ranks).first * CLASSES;
  }
  MPI_Reduce(&loss, &together.loss, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Gatherv(gradient, counts[rank], MPI_FLOAT, together.gradient, counts, places, MPI_FLOAT, 0, MPI_COMM_WORLD);
  free(counts), free(places);
}

/* One loss on one batch. `state` of GHM lives from step to step: this rank's, and the one of rank 0 alone. */
static int step_of(enum corner corner, int32_t kind, int step, int64_t *state, int64_t *state_alone) {
  const struct share mine = share_of(corner, rank, ranks);
  double loss;
  tare_level level;
  tare_batch batch;
  fill(corner, ranks, step, logits, labels); /* every rank could make it all; each uses its own rows only */
  tare_level_init_rows(&level, mine.rows, CLASSES);
  level.logits = logits + mine.first * CLASSES, level.labels = labels + mine.first, level.gradient = gradient;
  tare_batch_init(&batch), batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;

  memset(&together, 0, sizeof together), memset(&alone, 0, sizeof alone);
  memset(gradient, 0xff, sizeof gradient); /* NaN, so that an element that is not written shows */
  if (kind == TARE_LOSS_GHM_C) {
    ghm(&batch, &loss, state);
    memcpy(together.words, state, sizeof together.words);
  } else {
    focal(&batch, &loss, (tare_counts *)(void *)together.words);
  }
  gather(corner, loss);
  if (rank != 0) return 0;
  evaluate_alone(kind, state_alone);
  return compare(corner, kind, step, &together, &alone);
}

static int all_corners(void) {
  int differ = 0;
  for (int corner = 0; corner < CORNERS; corner++) {
    int64_t state[STATE_WORDS] = {0}, state_alone[STATE_WORDS] = {0}; /* all zero: a fresh one */
    differ |= step_of((enum corner)corner, TARE_LOSS_SIGMOID_FOCAL, 0, NULL, NULL);
    for (int step = 0; step < STEPS; step++) {
      differ |= step_of((enum corner)corner, TARE_LOSS_GHM_C, step, state, state_alone);
    }
  }
  return differ;
}

int main(int count, char **arguments) {
  MPI_Init(&count, &arguments);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (count > 1) reduce = strcmp(arguments[1], "--without-reduction") != 0;
  if (count > 2 || (count == 2 && reduce)) {
    if (rank == 0) fprintf(stderr, "usage: ranks_mpi [--without-reduction]\n");
    MPI_Finalize();
    return 2;
  }
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU, options.threads = 1; /* the arrays are host memory; a rank is a core here */
  need(tare_context_create(&context, &options));
  if (rank == 0) print_heading(ranks, reduce);
  int differ = all_corners();
  MPI_Bcast(&differ, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (rank == 0)
    puts(differ ? "The ranks together are NOT the whole batch." : "The ranks together are the whole batch.");
  tare_context_destroy(context);
  MPI_Finalize();
  return differ ? EXIT_FAILURE : EXIT_SUCCESS;
}
