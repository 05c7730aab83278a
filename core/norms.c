/* SPDX-License-Identifier: Apache-2.0 */
#include "norms.h"

#include "losses/ghm.h"
#include "view.h"

void tare_norms_spec(const tare_problem *problem, tare_loss_spec *loss) {
  tare_loss_spec_init(loss, TARE_LOSS_GHM_C);
  loss->ghm.bins = problem->output.norm_bins;
}

void tare_norms_to_count(const tare_problem *problem, tare_problem *counted) {
  *counted = *problem;
  counted->loss.kind = TARE_LOSS_SIGMOID_CE;
  counted->power = 0;
  counted->alpha = -1;
  counted->alpha_per_class = NULL;
  counted->alpha_of_negatives = counted->alpha_is_part = counted->labels_apart = 0;
  counted->shape = TARE_SHAPE_NONE;
  counted->weighs_terms = counted->weighs_apart = 0;
  counted->batch.positive_weights = NULL;
  tare_output_init(&counted->output);
  counted->output.norm_bins = problem->output.norm_bins;
  counted->output.norm_histogram = problem->output.norm_histogram;
  for (int i = 0; i < problem->level_count; i++) {
    const int absent[] = {TARE_ARRAY_GRADIENT, TARE_ARRAY_ROW_LOSS, TARE_ARRAY_ELEMENT_LOSS};
    for (size_t k = 0; k < sizeof absent / sizeof *absent; k++) counted->view[i].array[absent[k]].data = NULL;
  }
}

static tare_status check_overlaps(const tare_problem *problem, tare_error *error) {
  const int64_t bytes = (int64_t)sizeof(int64_t);
  const tare_footprint counts = {.data = (intptr_t)problem->output.norm_histogram,
                                 .element = bytes,
                                 .length = {problem->output.norm_bins, 1, 1, 1, 1},
                                 .stride = {bytes, 0, 0, 0, 0}};
  for (int i = 0; i < problem->level_count; i++)
    for (int name = 0; name < TARE_ARRAY_ROW_INDEX && problem->view[i].rows; name++) {
      if (!problem->view[i].array[name].data) continue;
      const tare_footprint array = tare_view_footprint(problem, &problem->view[i], name);
      if (tare_footprints_overlap(&counts, &array))
        return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                         "output->norm_histogram (%p) overlaps %s (%p); it must overlap no array",
                         (void *)problem->output.norm_histogram, tare_array_path(i, name).text,
                         problem->view[i].array[name].data);
    }
  return TARE_STATUS_OK;
}

static tare_status check_bins(const tare_output *output, tare_error *error) {
  if (!output->norm_histogram && output->norm_bins)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->norm_bins is %d without output->norm_histogram; leave it 0", output->norm_bins);
  if (!output->norm_histogram) return TARE_STATUS_OK;
  if (output->norm_bins < 1 || output->norm_bins > TARE_MAX_BINS)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->norm_bins is %d; it must be in [1,%d]",
                     output->norm_bins, TARE_MAX_BINS);
  if ((uintptr_t)output->norm_histogram % 8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->norm_histogram is %p; it must be aligned to 8 bytes",
                     (void *)output->norm_histogram);
  return TARE_STATUS_OK;
}

tare_status tare_check_norms(const tare_problem *problem, int unseen, tare_error *error) {
  const tare_status status = check_bins(&problem->output, error);
  if (status || !tare_counts_norms(problem)) return status;
  if (tare_is_ghm(problem))
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->norm_histogram with a GHM loss: the counts are in its state (tare_ghm_parameters); leave "
                     "norm_histogram NULL");
  if (problem->family != TARE_LOSS_FAMILY_SIGMOID)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "output->norm_histogram with a softmax loss: only a sigmoid loss has |p-t| for each element; leave "
        "norm_histogram NULL");
  if (unseen)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "output->norm_histogram with a fused head: it never has all logits at once; form the logits "
                     "and call tare_evaluate, or leave norm_histogram NULL");
  return check_overlaps(problem, error);
}
