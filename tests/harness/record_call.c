/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_call KEY=VALUE...: one call of the library on the emulated device, whose kernels TARE_EMULATOR_RECORD keeps
 * for bench/slots. Arrays are files of raw numbers, which the device gets as they are.
 *   loss=NAME dtype=f32|f16|bf16 rows=N classes=N layout=rows|nchw
 *   logits= labels= targets= scores= row_weights= element_weights= alpha_per_class= positive_weights=
 *   class_weights= negative_weights= background_negative_weights= offset= margins= log_counts=FILE
 *   gamma_per_class=FILE
 *   pairs=FILE: two scores a row, of a target between bins
 *   z_loss=NUMBER
 *   images=N hard_negatives=RATIO hard_rows=N: a selection
 *   gradient= row_loss= element_loss= class_sums=FILE: wanted, and written there
 * loss=masks: tare_mask_evaluate, of `rows` masks of `classes` pixels, with targets in bytes.
 *   false_positive_weight= false_negative_weight= exponent= focal_weight=NUMBER
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tare.h"

static int count;
static char **arguments;

static const char *value_of(const char *key) {
  const size_t length = strlen(key);
  for (int i = 1; i < count; i++)
    if (strncmp(arguments[i], key, length) == 0 && arguments[i][length] == '=') return arguments[i] + length + 1;
  return NULL;
}

static void need(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "record_call: %s\n", what);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = NULL;
  need(cudaMalloc(&memory, bytes) == cudaSuccess, "no device memory");
  return memory;
}

/* The numbers of a file in device memory, or NULL where the key is not given. */
static void *upload(const char *key) {
  const char *const path = value_of(key);
  if (!path) return NULL;
  FILE *file = fopen(path, "rb");
  need(file != NULL && fseek(file, 0, SEEK_END) == 0, path);
  const long size = ftell(file);
  need(size > 0, path);
  char *const bytes = malloc((size_t)size);
  rewind(file);
  need(bytes && fread(bytes, 1, (size_t)size, file) == (size_t)size, path);
  fclose(file);
  void *const memory = allocate((size_t)size);
  need(cudaMemcpy(memory, bytes, (size_t)size, cudaMemcpyHostToDevice) == cudaSuccess, path);
  free(bytes);
  return memory;
}

static void *room_for(const char *key, int64_t bytes) { return value_of(key) ? allocate((size_t)bytes) : NULL; }

static void download(const char *key, const void *memory, int64_t size) {
  if (!memory) return;
  char *const bytes = malloc((size_t)size);
  need(bytes && cudaMemcpy(bytes, memory, (size_t)size, cudaMemcpyDeviceToHost) == cudaSuccess, key);
  FILE *file = fopen(value_of(key), "wb");
  need(file && fwrite(bytes, 1, (size_t)size, file) == (size_t)size && fclose(file) == 0, key);
  free(bytes);
}

static int32_t dtype_of(const char *name) {
  return strcmp(name, "f16") == 0 ? TARE_DTYPE_F16 : strcmp(name, "bf16") == 0 ? TARE_DTYPE_BF16 : TARE_DTYPE_F32;
}

static tare_loss_spec make_loss(void) {
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, (tare_loss_kind)tare_loss_kind_from_name(value_of("loss")));
  float *const alpha = upload("alpha_per_class");
  need(!alpha || loss.kind == TARE_LOSS_SIGMOID_FOCAL || loss.kind == TARE_LOSS_SIGMOID_CE, "no alpha_per_class here");
  if (loss.kind == TARE_LOSS_SIGMOID_FOCAL) loss.focal.alpha_per_class = alpha;
  if (loss.kind == TARE_LOSS_SIGMOID_FOCAL) loss.focal.gamma_per_class = upload("gamma_per_class");
  if (loss.kind == TARE_LOSS_SIGMOID_CE) loss.ce.alpha_per_class = alpha;
  if (loss.kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) loss.logit_adjusted.offset = upload("offset");
  if (loss.kind == TARE_LOSS_SOFTMAX_LDAM) loss.ldam.margins = upload("margins");
  if (value_of("z_loss")) loss.ce.z_loss = atof(value_of("z_loss"));
  if (loss.kind == TARE_LOSS_SOFTMAX_SEESAW) loss.seesaw.log_counts = upload("log_counts");
  if (loss.kind != TARE_LOSS_GHM_C && loss.kind != TARE_LOSS_GHM_R) return loss;
  loss.ghm.state = allocate(tare_ghm_state_bytes(loss.ghm.bins));
  need(cudaMemset(loss.ghm.state, 0, tare_ghm_state_bytes(loss.ghm.bins)) == cudaSuccess, "no state");
  return loss;
}

static int64_t images(void) { return value_of("images") ? atoll(value_of("images")) : 1; }

static tare_level make_level(int64_t rows, int64_t classes, int64_t bytes) {
  tare_level level;
  if (strcmp(value_of("layout"), "nchw") == 0)
    tare_level_init_nchw(&level, 1, classes, 1, rows / images());
  else
    tare_level_init_nhwc(&level, 1, classes, 1, rows / images());
  level.logits = upload("logits");
  level.labels = upload("labels");
  level.targets = upload("targets");
  level.scores = upload("scores");
  if (value_of("pairs")) {
    level.scores = upload("pairs");
    level.scores_strides = (tare_strides){2 * rows, 2 * rows, 2, 2, 1};
  }
  level.row_weights = upload("row_weights");
  level.element_weights = upload("element_weights");
  level.row_loss = room_for("row_loss", rows * 4);
  level.element_loss = room_for("element_loss", rows * classes * 4);
  level.gradient = room_for("gradient", rows * classes * bytes); /* last: bench/slots finds it so */
  return level;
}

static void set_batch(tare_batch *batch, const tare_level *level, int32_t dtype, int64_t classes) {
  tare_batch_init(batch);
  batch->levels = level;
  batch->level_count = 1;
  batch->dtype = dtype;
  batch->classes = classes;
  batch->images = images();
  batch->class_weights = upload("class_weights");
  batch->positive_weights = upload("positive_weights");
  batch->negative_weights = upload("negative_weights");
  batch->background_negative_weights = upload("background_negative_weights");
  if (value_of("hard_negatives")) {
    batch->selection = TARE_SELECTION_HARD_NEGATIVES;
    batch->selection_ratio = atof(value_of("hard_negatives"));
  }
  if (value_of("hard_rows")) {
    batch->selection = TARE_SELECTION_HARD_ROWS;
    batch->selection_count = atoll(value_of("hard_rows"));
  }
}

static void lend(tare_context *context, uint64_t bytes) {
  if (!bytes) return;
  need(tare_context_set_workspace(context, allocate((size_t)bytes), bytes) == TARE_STATUS_OK, tare_error_text(context));
}

static void evaluate(tare_context *context, int64_t rows, int64_t classes) {
  const int32_t dtype = dtype_of(value_of("dtype"));
  const int64_t bytes = dtype == TARE_DTYPE_F32 ? 4 : 2;
  const tare_loss_spec loss = make_loss();
  tare_output output;
  tare_output_init(&output);
  output.loss = room_for("loss_out", 4);
  output.class_sums = room_for("class_sums", classes * (int64_t)sizeof *output.class_sums);
  const tare_level level = make_level(rows, classes, bytes);
  tare_batch batch;
  set_batch(&batch, &level, dtype, classes);
  uint64_t size = 0;
  need(tare_workspace_size(context, &loss, &batch, &output, &size) == TARE_STATUS_OK, tare_error_text(context));
  lend(context, size);
  need(tare_evaluate(context, &loss, &batch, &output, NULL) == TARE_STATUS_OK, tare_error_text(context));
  need(tare_context_synchronize(context, NULL) == TARE_STATUS_OK, tare_error_text(context));
  download("gradient", level.gradient, rows * classes * bytes);
  download("row_loss", level.row_loss, rows * 4);
  download("element_loss", level.element_loss, rows * classes * 4);
  download("class_sums", output.class_sums, classes * (int64_t)sizeof *output.class_sums);
  download("loss_out", output.loss, 4);
}

static double number_of(const char *key, double otherwise) { return value_of(key) ? atof(value_of(key)) : otherwise; }

static void evaluate_masks(tare_context *context, int64_t count_of_masks, int64_t pixels) {
  tare_mask_spec spec;
  tare_mask_spec_init(&spec);
  spec.false_positive_weight = number_of("false_positive_weight", spec.false_positive_weight);
  spec.false_negative_weight = number_of("false_negative_weight", spec.false_negative_weight);
  spec.exponent = number_of("exponent", spec.exponent);
  spec.focal_weight = number_of("focal_weight", spec.focal_weight);
  tare_masks masks;
  tare_masks_init(&masks, count_of_masks, pixels);
  masks.dtype = dtype_of(value_of("dtype"));
  masks.target_dtype = TARE_MASK_TARGET_U8;
  masks.logits = upload("logits");
  masks.targets = upload("targets");
  const int64_t size = count_of_masks * pixels * (masks.dtype == TARE_DTYPE_F32 ? 4 : 2);
  uint64_t bytes = 0;
  need(tare_mask_workspace_size(context, &masks, &bytes) == TARE_STATUS_OK, tare_error_text(context));
  lend(context, bytes);
  tare_mask_output output;
  tare_mask_output_init(&output, pixels);
  output.loss = room_for("loss_out", 4);
  output.gradient = room_for("gradient", size);
  need(tare_mask_evaluate(context, &spec, &masks, &output, NULL) == TARE_STATUS_OK, tare_error_text(context));
  need(tare_context_synchronize(context, NULL) == TARE_STATUS_OK, tare_error_text(context));
  download("gradient", output.gradient, size);
  download("loss_out", output.loss, 4);
}

int main(int argc, char **argv) {
  count = argc;
  arguments = argv;
  need(value_of("loss") && value_of("dtype") && value_of("rows") && value_of("classes") && value_of("layout"),
       "loss, dtype, rows, classes and layout are needed");
  const int64_t rows = atoll(value_of("rows")), classes = atoll(value_of("classes"));
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  tare_context *context = NULL;
  need(tare_context_create(&context, &options) == TARE_STATUS_OK, "no context");
  if (strcmp(value_of("loss"), "masks") == 0)
    evaluate_masks(context, rows, classes);
  else
    evaluate(context, rows, classes);
  tare_context_destroy(context);
  return 0;
}
