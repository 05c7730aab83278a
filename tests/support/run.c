/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A problem through the library: its arrays are laid out in guarded device memory as the problem says, evaluated, and
 * read back in row order.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "class_mask.h"
#include "head.h"
#include "layout.h"
#include "numbers.h"
#include "parameters.h"
#include "problem.h"

typedef struct run_state {
  problem *p;
  const test_device *device;
  tare_context *context;
  placed_array arrays[ARRAY_KINDS];
  buffer *level_loss[TARE_MAX_LEVELS], *divisor[TARE_MAX_LEVELS];
  buffer *loss, *counts, *class_sums, *normalizer_sums, *alpha, *gamma, *offset, *log_counts, *margins, *class_weights,
      *positive_weights, *negative_weights, *background_negative_weights, *normalizer, *scale, *ghm, *workspace,
      *class_mask;
  tare_level levels[TARE_MAX_LEVELS];
  head_run head;
} run_state;

static void describe_arrays(run_state *r) {
  const problem *p = r->p;
  const int32_t losses = p->dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
  r->arrays[ARRAY_LOGITS] = (placed_array){
      .present = p->head == NULL, .has_classes = true, .dtype = p->dtype, .data = p->logits, .name = "logits"};
  r->arrays[ARRAY_GRADIENT] =
      (placed_array){.present = (p->want & WANT_GRADIENT) != 0 && !p->in_place && p->head == NULL,
                     .is_output = true,
                     .has_classes = true,
                     .dtype = p->dtype,
                     .name = "gradient"};
  r->arrays[ARRAY_LABELS] = (placed_array){.present = p->labels != NULL, .dtype = -1, .name = "labels"};
  r->arrays[ARRAY_TARGETS] = (placed_array){.present = p->targets != NULL,
                                            .has_classes = true,
                                            .dtype = p->target_dtype,
                                            .data = p->targets,
                                            .name = "targets"};
  r->arrays[ARRAY_SCORES] = (placed_array){.present = p->scores != NULL,
                                           .has_classes = score_columns(p) > 1,
                                           .columns = score_columns(p),
                                           .dtype = p->score_dtype,
                                           .data = p->scores,
                                           .name = "scores"};
  r->arrays[ARRAY_ROW_WEIGHTS] = (placed_array){
      .present = p->row_weights != NULL, .dtype = TARE_DTYPE_F32, .data = p->row_weights, .name = "row_weights"};
  r->arrays[ARRAY_ELEMENT_WEIGHTS] = (placed_array){.present = p->element_weights != NULL,
                                                    .has_classes = true,
                                                    .dtype = TARE_DTYPE_F32,
                                                    .data = p->element_weights,
                                                    .name = "element_weights"};
  r->arrays[ARRAY_ROW_LOSS] =
      (placed_array){.present = (p->want & WANT_ROW_LOSS) != 0, .is_output = true, .dtype = losses, .name = "row_loss"};
  r->arrays[ARRAY_ELEMENT_LOSS] = (placed_array){.present = (p->want & WANT_ELEMENT_LOSS) != 0,
                                                 .is_output = true,
                                                 .has_classes = true,
                                                 .dtype = losses,
                                                 .name = "element_loss"};
  for (int kind = 0; kind < ARRAY_KINDS; kind++) {
    if (r->arrays[kind].present) layout_place(&r->arrays[kind], p, kind, r->device);
  }
}

static void fill_levels(run_state *r) {
  const placed_array *a = r->arrays;
  const int gradient = r->p->in_place ? ARRAY_LOGITS : ARRAY_GRADIENT;
  for (int32_t l = 0; l < r->p->level_count; l++) {
    r->levels[l] = (tare_level){
        .height = r->p->levels[l].height,
        .width = r->p->levels[l].width,
        .anchors = r->p->levels[l].anchors,
        .logits = layout_memory(&a[ARRAY_LOGITS], l),
        .logits_strides = a[ARRAY_LOGITS].strides[l],
        .gradient = r->p->want & WANT_GRADIENT ? layout_memory(&a[gradient], l) : NULL,
        .gradient_strides = a[gradient].strides[l],
        .labels = layout_memory(&a[ARRAY_LABELS], l),
        .labels_strides = a[ARRAY_LABELS].strides[l],
        .targets = layout_memory(&a[ARRAY_TARGETS], l),
        .targets_strides = a[ARRAY_TARGETS].strides[l],
        .scores = layout_memory(&a[ARRAY_SCORES], l),
        .scores_strides = a[ARRAY_SCORES].strides[l],
        .row_weights = layout_memory(&a[ARRAY_ROW_WEIGHTS], l),
        .row_weights_strides = a[ARRAY_ROW_WEIGHTS].strides[l],
        .element_weights = layout_memory(&a[ARRAY_ELEMENT_WEIGHTS], l),
        .element_weights_strides = a[ARRAY_ELEMENT_WEIGHTS].strides[l],
        .row_loss = layout_memory(&a[ARRAY_ROW_LOSS], l),
        .row_loss_strides = a[ARRAY_ROW_LOSS].strides[l],
        .element_loss = layout_memory(&a[ARRAY_ELEMENT_LOSS], l),
        .element_loss_strides = a[ARRAY_ELEMENT_LOSS].strides[l],
        .loss_weight = weight_of_level(r->p, l),
        .divisor = r->p->of_level[l].on_device ? 0 : r->p->of_level[l].divisor,
    };
  }
}

/* ---- The call -------------------------------------------------------------------------------------------------- */

static buffer *floats(const test_device *device, const double *values, int64_t count) {
  if (values == NULL) return NULL;
  float *narrow = malloc((size_t)count * sizeof *narrow + 1);
  for (int64_t i = 0; i < count; i++) narrow[i] = (float)values[i];
  buffer *b = buffer_of(device, narrow, (size_t)count * sizeof *narrow);
  free(narrow);
  return b;
}

static void make_level_scalars(run_state *r) {
  const problem *p = r->p;
  for (int32_t l = 0; l < p->level_count; l++) {
    if (p->want & WANT_LEVEL_LOSSES)
      r->level_loss[l] = buffer_new(r->device, p->loss_dtype == TARE_DTYPE_F64 ? 8 : 4, 0);
    if (p->of_level[l].on_device) r->divisor[l] = floats(r->device, &p->of_level[l].divisor, 1);
    r->levels[l].loss = buffer_memory(r->level_loss[l]);
    r->levels[l].divisor_pointer = buffer_memory(r->divisor[l]);
  }
}

/** Structs of the normalizers' sums. */
static size_t sums_of(const problem *p) {
  return p->normalizer_scope == TARE_NORMALIZER_SCOPE_LEVEL ? (size_t)p->level_count : 1;
}

static void make_scalars(run_state *r) {
  const problem *p = r->p;
  make_level_scalars(r);
  if (p->want & WANT_LOSS) r->loss = buffer_new(r->device, p->loss_dtype == TARE_DTYPE_F64 ? 8 : 4, 0);
  if (p->want & WANT_COUNTS) r->counts = buffer_new(r->device, sizeof(tare_counts), 0);
  if (p->want & WANT_CLASS_SUMS) r->class_sums = buffer_new(r->device, (size_t)p->classes * sizeof(tare_class_sums), 8);
  if (p->want & WANT_NORMALIZER_SUMS)
    r->normalizer_sums = buffer_new(r->device, sums_of(p) * sizeof(tare_normalizer_sums), 8);
  r->alpha = floats(r->device, p->alpha_per_class, p->classes);
  r->gamma = floats(r->device, p->gamma_per_class, p->classes);
  r->negative_weights = floats(r->device, p->negative_weights, p->classes);
  r->background_negative_weights = floats(r->device, p->background_negative_weights, p->classes);
  r->offset = floats(r->device, p->offset, p->classes);
  r->log_counts = floats(r->device, p->log_counts, p->classes);
  r->margins = floats(r->device, p->margins, p->classes);
  r->class_weights = floats(r->device, p->class_weights, p->classes);
  r->positive_weights = floats(r->device, p->positive_weights, p->classes);
  r->class_mask = class_mask_buffer(p, r->device);
  if (p->normalizer_on_device) r->normalizer = floats(r->device, &p->normalizer_value, 1);
  if (p->device_scale != 0) r->scale = floats(r->device, &p->device_scale, 1);
  if (p->ghm_state != NULL) r->ghm = buffer_of(r->device, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins));
}

static tare_loss_spec make_loss(const run_state *r) {
  tare_loss_spec loss = r->p->loss;
  const int32_t count = describe_loss(loss.kind).parameters;
  for (int32_t i = 0; i < count; i++) {
    const tare_parameter_description parameter = describe_parameter(loss.kind, i);
    const bool is_offset = strcmp(parameter.name, "offset") == 0, is_logs = strcmp(parameter.name, "log_counts") == 0;
    const buffer *per_class = is_offset ? r->offset : is_logs ? r->log_counts : r->alpha;
    if (strcmp(parameter.name, "gamma_per_class") == 0) per_class = r->gamma;
    if (strcmp(parameter.name, "margins") == 0) per_class = r->margins;
    if (parameter.type == TARE_PARAMETER_TYPE_PER_CLASS)
      parameter_set_pointer(&loss, &parameter, buffer_memory(per_class));
    if (parameter.type == TARE_PARAMETER_TYPE_STATE) parameter_set_pointer(&loss, &parameter, buffer_memory(r->ghm));
  }
  return loss;
}

static tare_batch make_batch(const run_state *r) {
  const problem *p = r->p;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = r->levels;
  batch.level_count = p->level_count;
  batch.dtype = p->dtype;
  batch.label_dtype = p->label_dtype;
  batch.target_dtype = p->target_dtype;
  batch.score_dtype = p->score_dtype;
  batch.images = p->images;
  batch.classes = p->classes;
  batch.first_label = p->first_label;
  batch.background_label = p->background_label;
  batch.ignore_label = p->ignore_label;
  batch.class_weights = buffer_memory(r->class_weights);
  batch.background_weight = p->background_weight;
  batch.positive_weights = buffer_memory(r->positive_weights);
  batch.negative_weights = buffer_memory(r->negative_weights);
  batch.background_negative_weights = buffer_memory(r->background_negative_weights);
  class_mask_give(p, r->class_mask, &batch);
  return batch;
}

static tare_output make_output(const run_state *r) {
  const problem *p = r->p;
  tare_output output;
  tare_output_init(&output);
  output.loss = buffer_memory(r->loss);
  output.loss_dtype = p->loss_dtype;
  output.normalizer = p->normalizer;
  output.normalizer_value = p->normalizer_value;
  output.normalizer_pointer = buffer_memory(r->normalizer);
  output.gradient_scale = p->gradient_scale;
  output.gradient_scale_pointer = buffer_memory(r->scale);
  output.counts = buffer_memory(r->counts);
  output.class_sums = buffer_memory(r->class_sums);
  output.normalizer_addend = p->normalizer_addend;
  output.normalizer_minimum = p->normalizer_minimum;
  output.normalizer_sums = buffer_memory(r->normalizer_sums);
  output.normalizer_scope = p->normalizer_scope;
  return output;
}

/** Of a fused head, as much as the problem gives it. */
static uint64_t workspace_bytes(const run_state *r, const tare_loss_spec *loss, const tare_batch *batch,
                                const tare_output *output) {
  uint64_t bytes = 0, ample = 0;
  if (r->p->head == NULL) {
    const tare_status status = tare_workspace_size(r->context, loss, batch, output, &bytes);
    return status == TARE_STATUS_OK ? bytes : 0;
  }
  const tare_linear *linear = &r->head.linear;
  if (tare_linear_workspace_size(r->context, loss, batch, linear, output, &bytes, &ample) != TARE_STATUS_OK) return 0;
  if (bytes > ample)
    cr_assert_fail("%s: least %llu, ample %llu", problem_text(r->p), (unsigned long long)bytes,
                   (unsigned long long)ample);
  return bytes + (uint64_t)(r->p->head->room * (double)(ample - bytes));
}

static void lend_workspace(run_state *r, const tare_loss_spec *loss, const tare_batch *batch,
                           const tare_output *output) {
  const uint64_t bytes = workspace_bytes(r, loss, batch, output);
  if (bytes == 0) return;
  r->workspace = buffer_for_workspace(r->device, bytes);
  const tare_status status = tare_context_set_workspace(r->context, r->workspace->memory, bytes);
  cr_assert_eq(status, TARE_STATUS_OK, "workspace of %llu bytes: %s", (unsigned long long)bytes,
               tare_error_text(r->context));
}

static tare_status evaluate(run_state *r, const tare_loss_spec *loss, const tare_batch *batch,
                            const tare_output *output) {
  if (r->p->call != NULL) return r->p->call(r->context, loss, batch, output, r->p->user);
  if (r->p->head == NULL) return tare_evaluate(r->context, loss, batch, output, NULL);
  const tare_linear *linear = &r->head.linear;
  const struct head *h = r->p->head;
  if (h->call != NULL) return h->call(r->context, loss, batch, linear, output, h->user);
  return tare_linear_evaluate(r->context, loss, batch, linear, output, NULL);
}

static void call(run_state *r, outcome *o) {
  const tare_loss_spec loss = make_loss(r);
  const tare_batch batch = make_batch(r);
  const tare_output output = make_output(r);
  lend_workspace(r, &loss, &batch, &output);
  o->status = evaluate(r, &loss, &batch, &output);
  snprintf(o->text, sizeof o->text, "%s", tare_error_text(r->context));
  o->check_status = tare_context_synchronize(r->context, NULL);
  if (o->status == TARE_STATUS_OK && o->check_status != TARE_STATUS_OK) {
    snprintf(o->text, sizeof o->text, "%s", tare_error_text(r->context));
  }
  if (r->workspace != NULL) tare_context_set_workspace(r->context, NULL, 0);
}

/* ---- What came of it -------------------------------------------------------------------------------------------- */

static void read_outcome(run_state *r, outcome *o) {
  const problem *p = r->p;
  const int gradient = p->in_place ? ARRAY_LOGITS : ARRAY_GRADIENT;
  if (p->head != NULL) o->head = head_read(&r->head);
  if (p->want & WANT_GRADIENT && p->head == NULL) o->gradient = layout_read(&r->arrays[gradient], p);
  if (p->want & WANT_ROW_LOSS) o->row_loss = layout_read(&r->arrays[ARRAY_ROW_LOSS], p);
  if (p->want & WANT_ELEMENT_LOSS) o->element_loss = layout_read(&r->arrays[ARRAY_ELEMENT_LOSS], p);
  if (r->loss != NULL) {
    buffer_download(r->loss, "loss");
    o->loss = load_element(r->loss->now, 0, p->loss_dtype);
  }
  if (r->counts != NULL) {
    buffer_download(r->counts, "counts");
    memcpy(&o->counts, r->counts->now, sizeof o->counts);
  }
  if (r->class_sums != NULL) {
    buffer_download(r->class_sums, "class sums");
    o->class_sums = malloc(r->class_sums->bytes);
    memcpy(o->class_sums, r->class_sums->now, r->class_sums->bytes);
  }
  if (r->normalizer_sums != NULL) {
    buffer_download(r->normalizer_sums, "normalizer sums");
    memcpy(o->normalizer_sums, r->normalizer_sums->now, r->normalizer_sums->bytes);
  }
  for (int32_t l = 0; p->want & WANT_LEVEL_LOSSES && l < p->level_count; l++) {
    buffer_download(r->level_loss[l], "loss of a level");
    o->level_loss[l] = load_element(r->level_loss[l]->now, 0, p->loss_dtype);
  }
  if (r->ghm != NULL) {
    buffer_download(r->ghm, "GHM state");
    memcpy(p->ghm_state, r->ghm->now, r->ghm->bytes);
  }
}

static void expect_nothing_written(run_state *r) {
  if (r->p->head != NULL) head_expect_nothing_written(&r->head);
  for (int kind = 0; kind < ARRAY_KINDS; kind++) layout_expect_unchanged(&r->arrays[kind]);
  if (r->loss != NULL) buffer_expect_unchanged(r->loss, "loss of a failed call");
  if (r->counts != NULL) buffer_expect_unchanged(r->counts, "counts of a failed call");
  if (r->class_sums != NULL) buffer_expect_unchanged(r->class_sums, "class sums of a failed call");
  if (r->normalizer_sums != NULL) buffer_expect_unchanged(r->normalizer_sums, "normalizer sums of a failed call");
  for (int32_t l = 0; r->p->want & WANT_LEVEL_LOSSES && l < r->p->level_count; l++)
    buffer_expect_unchanged(r->level_loss[l], "loss of a level of a failed call");
  if (r->ghm != NULL) buffer_expect_unchanged(r->ghm, "GHM state of a failed call");
}

static void expect_inputs_unchanged(run_state *r) {
  for (int kind = 0; kind < ARRAY_KINDS; kind++) {
    const bool overwritten = kind == ARRAY_LOGITS && r->p->in_place && (r->p->want & WANT_GRADIENT) != 0;
    if (!r->arrays[kind].is_output && !overwritten) layout_expect_unchanged(&r->arrays[kind]);
  }
  buffer *const inputs[] = {
      r->alpha,      r->offset,    r->log_counts,       r->class_weights, r->positive_weights,
      r->normalizer, r->scale,     r->negative_weights, r->gamma,         r->background_negative_weights,
      r->margins,    r->class_mask};
  static const char *const names[] = {"alpha_per_class",
                                      "offset",
                                      "log_counts",
                                      "class_weights",
                                      "positive_weights",
                                      "normalizer_pointer",
                                      "gradient_scale_pointer",
                                      "negative_weights",
                                      "gamma_per_class",
                                      "background_negative_weights",
                                      "margins",
                                      "class_mask"};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
    if (inputs[i] != NULL) buffer_expect_unchanged(inputs[i], names[i]);
  }
  if (r->workspace != NULL) buffer_download(r->workspace, "workspace");
}

static void release(run_state *r) {
  if (r->p->head != NULL) head_close(&r->head);
  for (int kind = 0; kind < ARRAY_KINDS; kind++) {
    layout_free(&r->arrays[kind]);
  }
  buffer *const rest[] = {r->loss,       r->counts,        r->class_sums,       r->alpha,
                          r->offset,     r->class_weights, r->positive_weights, r->normalizer,
                          r->scale,      r->ghm,           r->workspace,        r->normalizer_sums,
                          r->log_counts, r->gamma,         r->negative_weights, r->background_negative_weights,
                          r->margins,    r->class_mask};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) buffer_free(rest[i]);
  for (int32_t l = 0; l < TARE_MAX_LEVELS; l++) {
    buffer_free(r->level_loss[l]);
    buffer_free(r->divisor[l]);
  }
}

static outcome *run_on(problem *p, const test_device *device, tare_context *context) {
  run_state r = {.p = p, .device = device, .context = context};
  outcome *o = calloc(1, sizeof *o);
  o->device = device;
  o->rows = p->rows;
  o->elements = p->rows * p->classes;
  describe_arrays(&r);
  fill_levels(&r);
  make_scalars(&r);
  if (p->head != NULL) head_open(&r.head, p, device);
  call(&r, o);
  if (o->status == TARE_STATUS_OK || o->status == TARE_STATUS_INVALID_TARGET) { /* outputs are written */
    read_outcome(&r, o);
    expect_inputs_unchanged(&r);
  } else if (o->status != TARE_STATUS_CUDA_ERROR) {
    expect_nothing_written(&r);
  } else if (!p->device_lost) { /* outputs are undefined, inputs are not */
    expect_inputs_unchanged(&r);
  }
  release(&r);
  return o;
}

static void expect_refusal(problem *p, const test_device *device, tare_context *context) {
  outcome *o = run_on(p, device, context);
  if (o->status == TARE_STATUS_OK) cr_assert_fail("%s computes %s: say so in devices.c", device->name, problem_text(p));
  if (o->text[0] == '\0') cr_assert_fail("%s: %s without a text", problem_text(p), tare_status_name(o->status));
  outcome_free(o);
}

outcome *problem_run(problem *p, const test_device *device) {
  tare_context *context = p->context != NULL ? p->context : device->context;
  const test_device *able = device_able(device, p->loss.kind, p->dtype);
  if (able == device) return run_on(p, device, context);
  expect_refusal(p, device, context);
  return run_on(p, able, able->context);
}
