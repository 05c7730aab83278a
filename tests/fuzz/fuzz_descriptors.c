/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptions of any bytes: each struct lies in memory of exactly the size that it claims, each array in exactly the
 * bytes that its axes reach. The call computes or refuses with a text; it reads and writes nothing else, and a refusal
 * writes nothing at all.
 */
#include <string.h>

#include "calls.h"

/* A struct of the caller's version: as long as its first word says, which is sometimes another length than ours. */
static void *versioned(fuzz_input *input, const void *ours, size_t size) {
  int64_t theirs = (int64_t)size;
  const int64_t choice = take_below(input, 24);
  if (choice == 0) theirs = take_byte(input);
  if (choice == 1) theirs = (int64_t)size + 8 * take_below(input, 5);
  if (choice == 2) theirs = take_odd_int(input);
  const size_t bytes = theirs >= 0 && theirs < 8 ? 8 : theirs < 0 || theirs > 65536 ? size : (size_t)theirs;
  unsigned char *copy = guarded(input, bytes, 8);
  memset(copy, 0, bytes);
  memcpy(copy, ours, bytes < size ? bytes : size);
  memcpy(copy, &theirs, sizeof theirs);
  if (bytes > size && take_below(input, 3) == 0) copy[bytes - 1] = 1; /* what this version does not know */
  return copy;
}

static int64_t take_stride(fuzz_input *input) {
  const int64_t choice = take_below(input, 24);
  return choice == 0 ? take_odd_int(input) : (int64_t)take_byte(input) % 41 - 8;
}

static tare_strides take_strides(fuzz_input *input) {
  return (tare_strides){take_stride(input), take_stride(input), take_stride(input), take_stride(input),
                        take_stride(input)};
}

typedef struct sizes {
  int64_t images, classes;
  size_t logits, labels, targets, losses; /* bytes of an element */
} sizes;

/* An array of a level, or NULL; its strides are changed now and then. */
static void *place(fuzz_input *input, const sizes *z, const tare_level *level, tare_strides *strides, bool has_classes,
                   size_t element) {
  const int64_t lengths[5] = {z->images, level->height, level->width, level->anchors, has_classes ? z->classes : 0};
  const int64_t choice = take_below(input, 16);
  if (choice == 0) return NULL;
  if (choice < 5) *strides = take_strides(input);
  char *at = fuzz_array(input, lengths, strides, element);
  return choice == 15 && at != NULL ? at + 1 : at; /* a bad alignment, mostly */
}

static void take_labels(fuzz_input *input, const sizes *z, tare_level *level) {
  level->labels = place(input, z, level, &level->labels_strides, false, z->labels);
  const int64_t lengths[5] = {z->images, level->height, level->width, level->anchors, 0};
  int64_t below;
  const int64_t span = fuzz_span(lengths, &level->labels_strides, &below);
  if (level->labels == NULL || span < 1 || (uintptr_t)level->labels % z->labels != 0) return;
  unsigned char *start = (unsigned char *)(uintptr_t)level->labels - (size_t)below * z->labels;
  for (int64_t i = 0; i < span; i++) {
    const int64_t label =
        take_below(input, 40) == 0 ? take_odd_int(input) : take_below(input, z->classes < 200 ? z->classes + 2 : 9) - 2;
    const int32_t narrow = (int32_t)label;
    memcpy(start + (size_t)i * z->labels, z->labels == 8 ? (const void *)&label : (const void *)&narrow, z->labels);
  }
}

static tare_level take_level(fuzz_input *input, const sizes *z) {
  tare_level level;
  const int64_t kind = take_below(input, 3);
  const int64_t height = take_below(input, 4), width = take_below(input, 5), anchors = take_below(input, 4);
  if (kind == 0) tare_level_init_rows(&level, height * width, z->classes);
  if (kind == 1) tare_level_init_nchw(&level, anchors, z->classes, height, width);
  if (kind == 2) tare_level_init_nhwc(&level, anchors, z->classes, height, width);
  if (take_below(input, 40) == 0) level.width = take_odd_int(input);
  const bool absurd =
      level.width < 0 || level.width > 64 || z->images < 0 || z->images > 64 || z->classes < 1 || z->classes > 4096;
  if (absurd) return level; /* no arrays: the call must find that out without them */
  level.logits = place(input, z, &level, &level.logits_strides, true, z->logits);
  level.gradient = place(input, z, &level, &level.gradient_strides, true, z->logits);
  if (take_below(input, 4) == 0)
    level.gradient = (void *)(uintptr_t)level.logits, level.gradient_strides = level.logits_strides;
  take_labels(input, z, &level);
  if (take_below(input, 3) == 0) level.targets = place(input, z, &level, &level.targets_strides, true, z->targets);
  if (take_below(input, 3) == 0) level.row_weights = place(input, z, &level, &level.row_weights_strides, false, 4);
  if (take_below(input, 3) == 0)
    level.element_weights = place(input, z, &level, &level.element_weights_strides, true, 4);
  level.row_loss = place(input, z, &level, &level.row_loss_strides, false, z->losses);
  if (take_below(input, 3) == 0)
    level.element_loss = place(input, z, &level, &level.element_loss_strides, true, z->losses);
  return level;
}

static size_t bytes_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 8 : dtype == TARE_DTYPE_F32 ? 4 : 2; }

static const float *take_floats(fuzz_input *input, int64_t count) {
  if (take_below(input, 4) != 0 || count < 1 || count > 4096) return NULL;
  float *values = guarded(input, (size_t)count * 4, 4);
  for (int64_t i = 0; i < count; i++) values[i] = (float)take_odd_double(input);
  return values;
}

static tare_batch take_batch(fuzz_input *input, tare_level *levels) {
  tare_batch batch;
  tare_batch_init(&batch);
  batch.dtype = (int32_t)take_below(input, 4);
  batch.label_dtype = (int32_t)take_below(input, 2);
  batch.target_dtype = (int32_t)take_below(input, 4);
  batch.images = take_below(input, 3);
  batch.classes = 1 + take_below(input, take_below(input, 4) == 0 ? 100 : 6);
  if (take_below(input, 32) == 0) batch.images = take_odd_int(input);
  if (take_below(input, 32) == 0) batch.classes = take_odd_int(input);
  if (take_below(input, 32) == 0) batch.dtype = (int32_t)take_odd_int(input);
  if (take_below(input, 8) == 0) batch.first_label = take_odd_int(input);
  if (take_below(input, 8) == 0) batch.background_label = take_odd_int(input);
  if (take_below(input, 8) == 0) batch.ignore_label = take_odd_int(input);
  if (take_below(input, 8) == 0) batch.background_weight = take_odd_double(input);
  batch.class_weights = take_floats(input, batch.classes);
  batch.positive_weights = take_floats(input, batch.classes);
  const bool known = batch.dtype >= 0 && batch.dtype <= TARE_DTYPE_F64;
  const sizes z = {.images = batch.images,
                   .classes = batch.classes,
                   .logits = known ? bytes_of(batch.dtype) : 4,
                   .labels = batch.label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4,
                   .targets = bytes_of(batch.target_dtype),
                   .losses = batch.dtype == TARE_DTYPE_F64 ? 8 : 4};
  batch.level_count = (int32_t)(1 + take_below(input, 3));
  for (int32_t l = 0; l < batch.level_count; l++) levels[l] = take_level(input, &z);
  return batch;
}

/* After everything else, so that the inputs of the corpus mean what they did. */
static void take_scores(fuzz_input *input, tare_batch *batch, tare_level *levels) {
  if (take_below(input, 3) != 0) return;
  batch->score_dtype = (int32_t)take_below(input, 5);
  const sizes z = {.images = batch->images, .classes = batch->classes};
  for (int32_t l = 0; l < batch->level_count; l++) {
    tare_level *level = &levels[l];
    if (level->logits == NULL) continue; /* sizes may be absurd */
    level->scores = place(input, &z, level, &level->scores_strides, false, bytes_of(batch->score_dtype));
  }
}

/* The levels in exactly their bytes, at the distance that the caller's version has. */
static void place_levels(fuzz_input *input, tare_batch *batch, const tare_level *levels) {
  const int64_t choice = take_below(input, 24);
  if (choice == 0) batch->level_stride = sizeof(tare_level) + 8 * (uint64_t)take_below(input, 4);
  if (choice == 1) batch->level_stride = (uint64_t)take_byte(input);
  const size_t stride = (size_t)batch->level_stride;
  unsigned char *at = guarded(input, stride * (size_t)batch->level_count, 1);
  memset(at, 0, stride * (size_t)batch->level_count);
  for (int32_t l = 0; l < batch->level_count; l++) {
    memcpy(at + stride * (size_t)l, &levels[l], stride < sizeof *levels ? stride : sizeof *levels);
  }
  batch->levels = (const tare_level *)(const void *)at;
}

static tare_loss_spec take_loss(fuzz_input *input) {
  tare_loss_spec loss;
  const int32_t kind = tare_loss_kind_at((int32_t)take_below(input, tare_loss_count()));
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  if (take_below(input, 16) == 0) loss.kind = (int32_t)take_odd_int(input);
  const bool ghm = kind == TARE_LOSS_GHM_C || kind == TARE_LOSS_GHM_R;
  if (!ghm && take_below(input, 2) == 0) loss.focal.alpha = take_odd_double(input);
  if (!ghm && kind != TARE_LOSS_SIGMOID_CE && kind != TARE_LOSS_SOFTMAX_CE && take_below(input, 2) == 0)
    loss.focal.gamma = take_odd_double(input);
  if (!ghm) return loss;
  if (take_below(input, 2) == 0) loss.ghm.bins = (int32_t)take_odd_int(input);
  if (take_below(input, 3) == 0) loss.ghm.density = (int32_t)take_below(input, 3);
  if (take_below(input, 3) == 0) loss.ghm.momentum = take_odd_double(input);
  if (take_below(input, 4) == 0) loss.ghm.epsilon = take_odd_double(input);
  if (take_below(input, 4) == 0) loss.ghm.mu = take_odd_double(input);
  return loss;
}

static tare_output take_output(fuzz_input *input) {
  tare_output output;
  tare_output_init(&output);
  if (take_below(input, 4) == 0) output.loss_dtype = TARE_DTYPE_F64;
  if (take_below(input, 8) != 0) output.loss = guarded(input, bytes_of(output.loss_dtype), bytes_of(output.loss_dtype));
  if (take_below(input, 2) == 0) output.counts = guarded(input, sizeof(tare_counts), 8);
  output.normalizer = (int32_t)take_below(input, 9);
  if (take_below(input, 4) == 0) output.normalizer_value = take_odd_double(input);
  if (take_below(input, 4) == 0) output.gradient_scale = take_odd_double(input);
  output.normalizer_pointer = take_floats(input, 1);
  output.gradient_scale_pointer = take_floats(input, 1);
  if (take_below(input, 4) == 1) output.normalizer_sums = guarded(input, sizeof(tare_normalizer_sums), 8);
  if (take_below(input, 4) == 1) output.normalizer_addend = take_odd_double(input);
  if (take_below(input, 4) == 1) output.normalizer_minimum = take_odd_double(input);
  return output;
}

static void lend(fuzz_input *input, tare_context *context, uint64_t bytes) {
  if (bytes == 0 || bytes > 1 << 22) return;
  tare_context_set_workspace(context, guarded(input, (size_t)bytes, 16), bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input input = {data, size};
  tare_level levels[3];
  tare_context *context = fuzz_context(&input);
  const tare_loss_spec loss = take_loss(&input);
  tare_batch batch = take_batch(&input, levels);
  const tare_output output = take_output(&input);
  take_scores(&input, &batch, levels);
  place_levels(&input, &batch, levels);
  const void *const their_loss = versioned(&input, &loss, sizeof loss);
  const void *const their_batch = versioned(&input, &batch, sizeof batch);
  const void *const their_output = versioned(&input, &output, sizeof output);
  uint64_t bytes = 0;
  guarded_remember();
  fuzz_expect_kept(context, tare_workspace_size(context, their_loss, their_batch, their_output, &bytes));
  lend(&input, context, bytes);
  guarded_remember();
  fuzz_expect_kept(context, tare_evaluate(context, their_loss, their_batch, their_output, NULL));
  guarded_remember();
  fuzz_expect_kept(context, tare_label_counts(context, their_batch, NULL, NULL, NULL));
  tare_context_set_workspace(context, NULL, 0);
  guarded_free_all();
  return 0;
}
