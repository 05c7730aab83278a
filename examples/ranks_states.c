/* SPDX-License-Identifier: Apache-2.0 */
/* Losses that follow what training has seen, on a batch that is split over MPI ranks: EQLv2 follows the gradients of
 * each class, Seesaw loss the samples. Only the sums of a step travel. Rank 0 also trains on the whole batch alone and
 * compares: counts to the last bit, sums and gradients to rounding.
 *
 *   mpirun -np 3 ranks_states                        exit status 0 if nothing differs by more than rounding
 *   mpirun -np 3 ranks_states --without-reduction    without the all-reduce: exit status 1 */
#include <mpi.h>
#include <stdlib.h>

#include "ranks.h"

enum { GRADIENT_WORDS = 1 + 4 * CLASSES, COUNT_WORDS = 1 + 2 * CLASSES, ROOM_BYTES = 1 << 20 };

static int rank, ranks, reduce = 1;
static tare_context *context;
static _Alignas(64) char room[ROOM_BYTES]; /* the workspace: class sums need one */

static void need(tare_status status) {
  if (status == TARE_STATUS_OK) return;
  fprintf(stderr, "rank %d: %s: %s\n", rank, tare_status_name(status), tare_error_text(context));
  MPI_Abort(MPI_COMM_WORLD, 2);
}

/* ---- The two losses ------------------------------------------------------------------------------------------------
 *
 * `whole`: this is the whole batch, and nothing is added up. */

/* Weights come from the batches before. The sums of this step are added up over the ranks, and then kept. */
static void eqlv2(const tare_batch *given, int64_t *state, int whole) {
  static float positive[CLASSES], negative[CLASSES];
  static tare_class_sums sums[CLASSES];
  tare_batch batch = *given;
  tare_gradient_balance balance;
  tare_loss_spec loss;
  tare_output output;
  tare_gradient_balance_init(&balance, TARE_GRADIENT_RULE_EQLV2, CLASSES);
  balance.state = state, balance.positive_weights = positive, balance.negative_weights = negative;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  tare_output_init(&output), output.class_sums = sums;
  batch.positive_weights = positive, batch.negative_weights = negative;

  need(tare_gradient_balance_weigh(context, &balance, NULL));
  need(tare_evaluate(context, &loss, &batch, &output, NULL));
  need(tare_gradient_balance_collect(context, &balance, sums, NULL));
  if (reduce && !whole) MPI_Allreduce(MPI_IN_PLACE, state + 1, 2 * CLASSES, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  need(tare_gradient_balance_step(context, &balance, NULL));
}

/* The samples of this batch are added up over the ranks before the loss is formed. */
static void seesaw(const tare_batch *batch, int64_t *state, int whole) {
  static float log_counts[CLASSES];
  tare_class_balance balance;
  tare_loss_spec loss;
  tare_output output;
  tare_class_balance_init(&balance, CLASSES), balance.state = state, balance.log_counts = log_counts;
  tare_loss_spec_init(&loss, TARE_LOSS_SOFTMAX_SEESAW), loss.seesaw.log_counts = log_counts;
  tare_output_init(&output);

  need(tare_class_balance_count(context, &balance, batch, NULL));
  if (reduce && !whole) MPI_Allreduce(MPI_IN_PLACE, state + 1, CLASSES, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  need(tare_class_balance_step(context, &balance, NULL));
  need(tare_evaluate(context, &loss, batch, &output, NULL));
}

/* ---- The proof ------------------------------------------------------------------------------------------------- */

struct training {
  int64_t gradients[GRADIENT_WORDS], counts[COUNT_WORDS]; /* the states; all zero: fresh ones */
  float by_eqlv2[ROWS * CLASSES], by_seesaw[ROWS * CLASSES];
};
static struct training together, alone;
static float logits[ROWS * CLASSES];
static int32_t labels[ROWS];

static void step_of(struct share mine, struct training *training, int whole) {
  tare_level level;
  tare_batch batch;
  tare_level_init_rows(&level, mine.rows, CLASSES);
  level.logits = logits + mine.first * CLASSES, level.labels = labels + mine.first;
  tare_batch_init(&batch), batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;
  level.gradient = training->by_eqlv2 + mine.first * CLASSES;
  eqlv2(&batch, training->gradients, whole);
  level.gradient = training->by_seesaw + mine.first * CLASSES;
  seesaw(&batch, training->counts, whole);
}

static double off(double a, double b) { return a == b ? 0 : fabs(a - b) / fmax(fabs(b), 1e-30); }

/* The largest relative difference of two gradients, over the rows of this rank. */
static double gradient_off(struct share mine, const float *a, const float *b) {
  double most = 0;
  for (int64_t i = mine.first * CLASSES; i < (mine.first + mine.rows) * CLASSES; i++) {
    const double one = off((double)a[i], (double)b[i]);
    if (!(one <= most)) most = one;
  }
  return most;
}

static double sums_off(void) {
  double most = 0, a, b;
  for (int word = 1 + 2 * CLASSES; word < GRADIENT_WORDS; word++) {
    memcpy(&a, &together.gradients[word], sizeof a);
    memcpy(&b, &alone.gradients[word], sizeof b);
    most = fmax(most, off(a, b));
  }
  return most;
}

/* One line a loss. Every rank also has the whole batch, and so looks at its own rows; the ranks agree on the answer. */
static int report(enum corner corner, int step, struct share mine) {
  double offs[3] = {sums_off(), gradient_off(mine, together.by_eqlv2, alone.by_eqlv2),
                    gradient_off(mine, together.by_seesaw, alone.by_seesaw)};
  int counts = memcmp(together.counts, alone.counts, sizeof alone.counts) == 0;
  MPI_Allreduce(MPI_IN_PLACE, offs, 3, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &counts, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  const int first = offs[0] <= gradient_bound && offs[1] <= gradient_bound && together.gradients[0] == step + 1;
  const int second = counts && offs[2] <= gradient_bound;
  if (rank != 0) return !(first && second);
  printf("%-23s %-7s %4d  sums off %8.1e  gradient off %8.1e%s\n", corner_names[corner], "EQLv2", step, offs[0],
         offs[1], first ? "  equal here" : "  DIFFERS");
  printf("%-23s %-7s %4d  counts %-10s  gradient off %8.1e%s\n", corner_names[corner], "Seesaw", step,
         counts ? "equal" : "differ", offs[2], second ? "  equal here" : "  DIFFERS");
  return !(first && second);
}

static int all_corners(void) {
  int differ = 0;
  for (int corner = 0; corner < CORNERS; corner++) {
    const struct share mine = share_of((enum corner)corner, rank, ranks);
    memset(&together, 0, sizeof together), memset(&alone, 0, sizeof alone);
    for (int step = 0; step < STEPS; step++) {
      fill((enum corner)corner, ranks, step, logits, labels);
      step_of(mine, &together, 0);
      step_of((struct share){0, ROWS}, &alone, 1);
      differ |= report((enum corner)corner, step, mine);
    }
  }
  return differ ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int count, char **arguments) {
  MPI_Init(&count, &arguments);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (count > 1) reduce = strcmp(arguments[1], "--without-reduction") != 0;
  if (count > 2 || (count == 2 && reduce)) {
    if (rank == 0) fprintf(stderr, "usage: ranks_states [--without-reduction]\n");
    MPI_Finalize();
    return 2;
  }
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU, options.threads = 1; /* the arrays are host memory; a rank is a core here */
  need(tare_context_create(&context, &options));
  need(tare_context_set_workspace(context, room, sizeof room));
  if (rank == 0) printf("%d rank%s, %d rows x %d classes\n", ranks, ranks == 1 ? "" : "s", ROWS, CLASSES);
  const int differ = all_corners();
  if (rank == 0)
    puts(differ ? "The ranks together are NOT the whole batch." : "The ranks together are the whole batch.");
  tare_context_destroy(context);
  MPI_Finalize();
  return differ ? EXIT_FAILURE : EXIT_SUCCESS;
}
