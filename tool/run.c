/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One loss on one batch.
 */
#define _GNU_SOURCE
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/convert.h"
#include "tool/base/problem.h"
#include "tool/base/stopwatch.h"

struct scalars {
  tare_normalizer_sums sums; /* if the divisor depends on them */
  double loss;
  tare_counts counts;
  double level_losses[TARE_MAX_LEVELS];
};

static int place(struct device *device, const void *host, uint64_t bytes, void **memory) {
  if (!host) return TOOL_OK;
  int status = device_alloc(device, bytes, memory);
  if (status == TOOL_OK) device_put(device, *memory, host, bytes);
  return status;
}

static int place_arrays(struct run *run, const struct sample *sample, bool gradient) {
  struct device *device = run->device;
  uint64_t rows = (uint64_t)sample->rows, elements = rows * (uint64_t)sample->classes;
  uint64_t bytes = elements * dtype_size(sample->dtype);
  int status = place(device, sample->logits, bytes, &run->logits);
  if (status == TOOL_OK && gradient) status = device_alloc(device, bytes, &run->gradient);
  if (status == TOOL_OK)
    status = place(device, sample->labels, rows * (sample->label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4), &run->labels);
  if (status == TOOL_OK)
    status = place(device, sample->targets, elements * dtype_size(sample->target_dtype), &run->targets);
  const uint64_t scores = rows * (uint64_t)sample->score_columns;
  if (status == TOOL_OK) status = place(device, sample->scores, scores * dtype_size(sample->score_dtype), &run->scores);
  if (status == TOOL_OK) status = place(device, sample->row_weights, rows * sizeof(float), &run->row_weights);
  if (status == TOOL_OK) {
    status = place(device, sample->class_weights, (uint64_t)sample->classes * sizeof(float), &run->class_weights);
  }
  if (status == TOOL_OK)
    status = place(device, sample->offset, (uint64_t)sample->classes * sizeof(float), &run->offset);
  if (status == TOOL_OK)
    status = place(device, sample->log_counts, (uint64_t)sample->classes * sizeof(float), &run->log_counts);
  if (status == TOOL_OK)
    status = place(device, sample->margins, (uint64_t)sample->classes * sizeof(float), &run->margins);
  if (status == TOOL_OK)
    status = place(device, sample->class_mask, (uint64_t)(sample->mask_images * sample->classes), &run->class_mask);
  for (int which = 0; status == TOOL_OK && which < COLUMN_VECTORS; which++)
    status = place(device, sample->columns[which], (uint64_t)sample->classes * sizeof(float), &run->columns[which]);
  return status;
}

/* `count` elements of `bytes` bytes behind an array; NULL where there is none. */
static void *behind(void *array, int64_t count, size_t bytes) {
  return array ? (char *)array + (size_t)count * bytes : NULL;
}

static void describe_level(struct run *run, const struct sample *sample, int64_t first, int64_t rows,
                           tare_level *level) {
  const int64_t element = first * sample->classes;
  tare_level_init_rows(level, rows / sample->images, sample->classes);
  level->logits = behind(run->logits, element, dtype_size(sample->dtype));
  level->gradient = behind(run->gradient, element, dtype_size(sample->dtype));
  level->labels = behind(run->labels, first, sample->label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4);
  level->targets = behind(run->targets, element, dtype_size(sample->target_dtype));
  level->scores = behind(run->scores, first * sample->score_columns, dtype_size(sample->score_dtype));
  if (sample->score_columns == 2) {
    const int64_t image = 2 * rows / sample->images;
    level->scores_strides = (tare_strides){image, image, 2, 2, 1};
  }
  level->row_weights = behind(run->row_weights, first, sizeof(float));
}

static void describe_levels(struct run *run, const struct sample *sample) {
  int64_t first = 0;
  run->has_level_losses = sample->level_count > 1;
  if (!run->has_level_losses) describe_level(run, sample, 0, sample->rows, &run->levels[0]);
  for (int32_t index = 0; index < sample->level_count && run->has_level_losses; index++) {
    describe_level(run, sample, first, sample->level_rows[index], &run->levels[index]);
    run->levels[index].loss_weight = sample->level_weights[index];
    first += sample->level_rows[index];
  }
}

static void describe(struct run *run, const struct sample *sample) {
  describe_levels(run, sample);
  tare_batch_init(&run->batch);
  run->batch.levels = run->levels;
  run->batch.level_count = run->has_level_losses ? sample->level_count : 1;
  run->batch.dtype = sample->dtype;
  run->batch.label_dtype = sample->label_dtype;
  run->batch.target_dtype = sample->target_dtype;
  run->batch.score_dtype = sample->score_dtype;
  run->batch.classes = sample->classes;
  run->batch.first_label = sample->first_label;
  run->batch.background_label = sample->background_label;
  run->batch.ignore_label = sample->ignore_label;
  run->batch.class_weights = run->class_weights;
  run->batch.background_weight = sample->background_weight;
  run->batch.images = sample->images;
  run->batch.class_mask = run->class_mask;
  run->batch.class_mask_image_stride = sample->mask_images > 1 ? sample->classes : 0;
  if (sample->hard_rows > 0 || sample->hard_fraction > 0) run->batch.selection = TARE_SELECTION_HARD_ROWS;
  run->batch.selection_count = sample->hard_rows;
  run->batch.selection_fraction = sample->hard_fraction;
  if (sample->hard_negatives < 0) return;
  run->batch.selection = TARE_SELECTION_HARD_NEGATIVES;
  run->batch.selection_ratio = sample->hard_negatives;
  run->batch.selection_minimum = sample->least_negatives;
}

/* Memory of each run: the scalars, a GHM state, and a workspace if the loss needs one. */
static int place_own(struct run *run, const tare_loss_spec *loss) {
  run->loss = *loss;
  if (loss->kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) run->loss.logit_adjusted.offset = run->offset;
  if (loss->kind == TARE_LOSS_SOFTMAX_SEESAW) run->loss.seesaw.log_counts = run->log_counts;
  if (loss->kind == TARE_LOSS_SOFTMAX_LDAM) run->loss.ldam.margins = run->margins;
  columns_put(run->columns, &run->batch, &run->loss);
  int status = device_alloc(run->device, sizeof(struct scalars), &run->scalars);
  if (status != TOOL_OK) return status;
  struct scalars *scalars = run->scalars;
  tare_output_init(&run->output);
  run->output.loss = &scalars->loss;
  run->output.loss_dtype = TARE_DTYPE_F64;
  run->output.counts = &scalars->counts;
  for (int32_t index = 0; index < run->batch.level_count && run->has_level_losses; index++)
    run->levels[index].loss = &scalars->level_losses[index];
  if (kind_is_ghm(loss->kind) && loss->ghm.density == TARE_GHM_DENSITY_UNIT_REGION) {
    run->state_bytes = tare_ghm_state_bytes(loss->ghm.bins);
    if (run->state_bytes == 0) return complain("%d bins: expected 1 to 1024", loss->ghm.bins);
    status = device_alloc(run->device, run->state_bytes, &run->state);
    run->loss.ghm.state = run->state;
  }
  if (status != TOOL_OK) return status;
  tare_status found =
      tare_workspace_size(run->device->context, &run->loss, &run->batch, &run->output, &run->workspace_bytes);
  status = device_check(run->device, found);
  if (status != TOOL_OK || run->workspace_bytes == 0) return status;
  return device_alloc(run->device, run->workspace_bytes, &run->workspace);
}

int run_prepare(struct run *run, struct device *device, const struct sample *sample, const tare_loss_spec *loss,
                bool gradient) {
  *run = (struct run){.device = device};
  int status = place_arrays(run, sample, gradient);
  if (status != TOOL_OK) return status;
  describe(run, sample);
  return place_own(run, loss);
}

int run_borrow(struct run *run, struct run *owner, const tare_loss_spec *loss) {
  *run = *owner;
  run->owner = owner;
  run->batch.levels = run->levels;
  run->scalars = run->state = run->workspace = NULL;
  run->state_bytes = run->workspace_bytes = 0;
  return place_own(run, loss);
}

static double run_rows(const struct run *run) {
  double rows = 0;
  for (int32_t index = 0; index < run->batch.level_count; index++) {
    const tare_level *level = &run->levels[index];
    rows += (double)run->batch.images * (double)level->height * (double)level->width * (double)level->anchors;
  }
  return rows;
}

int run_add_row_loss(struct run *run) {
  uint64_t size = run->batch.dtype == TARE_DTYPE_F64 ? sizeof(double) : sizeof(float);
  int status = device_alloc(run->device, (uint64_t)run_rows(run) * size, &run->row_loss);
  run->levels[0].row_loss = run->row_loss;
  return status;
}

void run_release(struct run *run) {
  if (!run->device) return;
  if (run->workspace) tare_context_set_workspace(run->device->context, NULL, 0);
  void *own[] = {run->scalars, run->state, run->workspace};
  void *arrays[] = {run->logits,        run->gradient, run->labels,     run->targets, run->scores,     run->row_weights,
                    run->class_weights, run->offset,   run->log_counts, run->margins, run->class_mask, run->row_loss};
  for (size_t index = 0; index < sizeof own / sizeof own[0]; index++) device_free(run->device, own[index]);
  for (size_t index = 0; !run->owner && index < sizeof arrays / sizeof arrays[0]; index++) {
    device_free(run->device, arrays[index]);
  }
  for (int which = 0; !run->owner && which < COLUMN_VECTORS; which++) device_free(run->device, run->columns[which]);
  *run = (struct run){0};
}

int run_start(struct run *run) {
  tare_context *context = run->device->context;
  device_clear(run->device, run->state, run->state_bytes);
  tare_status status = TARE_STATUS_OK;
  if (run->workspace) status = tare_context_set_workspace(context, run->workspace, run->workspace_bytes);
  if (status == TARE_STATUS_OK) status = tare_evaluate(context, &run->loss, &run->batch, &run->output, NULL);
  return device_check(run->device, status);
}

int run_once(struct run *run) {
  const int status = run_start(run);
  return status == TOOL_OK ? device_wait(run->device) : status;
}

int run_time(struct run *run, double budget, struct timing *timing) {
  struct times times = {0};
  int status = TOOL_OK;
  double start = seconds_now(), before = start;
  do {
    status = run_once(run);
    double after = seconds_now();
    if (status == TOOL_OK) status = times_add(&times, after - before);
    before = seconds_now();
  } while (status == TOOL_OK && before - start < budget && times.count < 1000);
  timing->seconds = times_quantile(&times, 0.5);
  timing->noise = times_noise(&times);
  times_free(&times);
  return status;
}

double run_bytes(const struct run *run) {
  double rows = run_rows(run), elements = rows * (double)run->batch.classes;
  double bytes = elements * (double)dtype_size(run->batch.dtype);
  if (run->levels[0].gradient) bytes *= 2;
  if (run->levels[0].labels) bytes += rows * (run->batch.label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4);
  if (run->levels[0].targets) bytes += elements * (double)dtype_size(run->batch.target_dtype);
  const double scores = run->levels[0].scores_strides.cls ? 2 : 1; /* of a row */
  if (run->levels[0].scores) bytes += rows * scores * (double)dtype_size(run->batch.score_dtype);
  if (run->levels[0].row_weights) bytes += rows * (double)sizeof(float);
  return bytes;
}

int run_gradient(const struct run *run, void **gradient) {
  uint64_t bytes = (uint64_t)run_rows(run) * (uint64_t)run->batch.classes * dtype_size(run->batch.dtype);
  *gradient = malloc(bytes ? (size_t)bytes : 1);
  if (!*gradient) return complain("no memory for the gradient");
  device_get(run->device, *gradient, run->levels[0].gradient, bytes);
  return TOOL_OK;
}

/* Whether the counts of the labels do not say what divides. */
static bool needs_sums(const struct run *run) {
  const bool selects = run->batch.selection != TARE_SELECTION_ALL;
  switch (run->output.normalizer) {
    case TARE_NORMALIZER_TARGETS:
    case TARE_NORMALIZER_ONES:
    case TARE_NORMALIZER_WEIGHTS:
      return true;
    case TARE_NORMALIZER_ELEMENTS:
      return selects || run->batch.class_mask;
    case TARE_NORMALIZER_ROWS:
      return selects;
    default:
      return false;
  }
}

void run_divide(struct run *run, const struct divisor *divisor) {
  struct scalars *scalars = run->scalars;
  run->output.normalizer = divisor->normalizer;
  run->output.normalizer_value = divisor->value;
  run->output.normalizer_addend = divisor->addend;
  run->output.normalizer_minimum = divisor->minimum;
  run->output.normalizer_sums = needs_sums(run) ? &scalars->sums : NULL;
}

static double divisor_of(const struct run *run, const struct scalars *scalars) {
  const tare_output *output = &run->output;
  const tare_counts *counts = &scalars->counts;
  double sum = 1;
  switch (output->normalizer) {
    case TARE_NORMALIZER_ELEMENTS:
      sum = (double)counts->counted * (kind_is_softmax(run->loss.kind) ? 1 : (double)run->batch.classes);
      if (output->normalizer_sums) sum = scalars->sums.elements;
      break;
    case TARE_NORMALIZER_ROWS:
      sum = output->normalizer_sums ? scalars->sums.rows : (double)counts->counted;
      break;
    case TARE_NORMALIZER_WEIGHTS:
      sum = scalars->sums.weights;
      break;
    case TARE_NORMALIZER_POSITIVES:
      sum = (double)counts->positives;
      break;
    case TARE_NORMALIZER_TARGETS:
      sum = scalars->sums.targets;
      break;
    case TARE_NORMALIZER_ONES:
      sum = scalars->sums.ones;
      break;
    case TARE_NORMALIZER_VALUE:
      return output->normalizer_value;
    default:
      break;
  }
  sum = fmax(sum + output->normalizer_addend, output->normalizer_minimum);
  return sum == 0 ? 1 : sum;
}

/* Rows are summed first, so that a long array keeps its precision. */
static void norms(const struct run *run, const void *gradient, struct result *result) {
  int64_t rows = (int64_t)run_rows(run), classes = run->batch.classes;
  double squares = 0;
  for (int64_t row = 0; row < rows; row++) {
    double l1 = 0, l2 = 0;
    for (int64_t class = 0; class < classes; class ++) {
      double value = number_at(run->batch.dtype, gradient, row * classes + class);
      l1 += fabs(value);
      l2 += value * value;
    }
    result->grad_l1 += l1;
    squares += l2;
  }
  result->grad_l2 = sqrt(squares);
}

int run_result(const struct run *run, struct result *result) {
  struct scalars scalars;
  device_get(run->device, &scalars, run->scalars, sizeof scalars);
  *result = (struct result){.loss = scalars.loss, .counts = scalars.counts};
  result->divisor = divisor_of(run, &scalars);
  memcpy(result->level_losses, scalars.level_losses, sizeof result->level_losses);
  if (!run->levels[0].gradient) return TOOL_OK;
  void *gradient;
  int status = run_gradient(run, &gradient);
  if (status != TOOL_OK) return status;
  norms(run, gradient, result);
  free(gradient);
  return TOOL_OK;
}
