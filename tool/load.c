/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arrays of an evaluation.
 */
#define _GNU_SOURCE
#include "load.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parameters.h"
#include "tool/base/convert.h"
#include "tool/base/counts.h"
#include "tool/base/npy.h"
#include "tool/base/problem.h"

static int32_t dtype_of(enum npy_type type) {
  switch (type) {
    case NPY_F2:
      return TARE_DTYPE_F16;
    case NPY_U2:
      return TARE_DTYPE_BF16;
    case NPY_F8:
      return TARE_DTYPE_F64;
    default:
      return TARE_DTYPE_F32;
  }
}

int load_logits(const char *role, const char *path, bool bf16, struct sample *sample) {
  struct npy array;
  const unsigned types = NPY_FLOATS | (bf16 ? (unsigned)NPY_U2 : 0);
  int status = maps_read_elements(role, path, types, &sample->maps, &array);
  if (status != TOOL_OK) return status;
  if (sample->maps.images > 0) sample->images = sample->maps.images; /* without images there are no rows */
  sample->logits = array.data;
  sample->dtype = dtype_of(array.type);
  sample->rows = array.shape[0];
  sample->classes = array.shape[1];
  if (sample->classes >= 1 && sample->classes <= INT32_MAX) return TOOL_OK;
  return complain("%s %s: found %" PRId64 " classes, expected 1 to %d", role, path, sample->classes, INT32_MAX);
}

static int check_rows(const char *role, const char *path, const struct npy *array, const struct sample *sample) {
  if (array->shape[0] == sample->rows) return TOOL_OK;
  return complain("%s %s: found %" PRId64 " rows, expected %" PRId64 ", one for each row of the logits", role, path,
                  array->shape[0], sample->rows);
}

/** Checks that the rows are those of a whole number of images. */
static int check_images(const struct sample *sample) {
  if (sample->rows % sample->images == 0) return TOOL_OK;
  return complain("--images %" PRId64 ": the logits have %" PRId64 " rows, expected a multiple of it", sample->images,
                  sample->rows);
}

int load_labels(const char *path, struct sample *sample) {
  struct npy array;
  int status = maps_read_rows("--labels", path, NPY_INTEGERS, &sample->maps, &array);
  if (status != TOOL_OK) return status;
  sample->labels = array.data;
  sample->label_dtype = array.type == NPY_I8 ? TARE_LABEL_DTYPE_I64 : TARE_LABEL_DTYPE_I32;
  return check_rows("--labels", path, &array, sample);
}

static int load_targets(const char *path, bool bf16, struct sample *sample) {
  struct npy array;
  const unsigned types = NPY_FLOATS | (bf16 ? (unsigned)NPY_U2 : 0);
  int status = maps_read_elements("--targets", path, types, &sample->maps, &array);
  if (status != TOOL_OK) return status;
  sample->targets = array.data;
  sample->target_dtype = dtype_of(array.type);
  status = check_rows("--targets", path, &array, sample);
  if (status != TOOL_OK) return status;
  if (array.shape[1] == sample->classes) return TOOL_OK; /* the library checks the targets that count */
  return complain("--targets %s: found %" PRId64 " columns, expected %" PRId64 ", as the logits have", path,
                  array.shape[1], sample->classes);
}

/* The weights of two bins of each row, in the order of rows whatever the layout of the logits is. */
static int read_pairs(const char *path, unsigned types, const struct sample *sample, struct npy *array) {
  char shape[256];
  const int status = npy_read("--scores", path, types, NPY_ANY_DIMENSIONS, array);
  if (status != TOOL_OK) return status;
  if (array->dimensions == 2 && array->shape[0] == sample->rows && array->shape[1] == 2) return TOOL_OK;
  npy_print_shape(array, shape, sizeof shape);
  free(array->data);
  return complain("--scores %s: found shape %s, expected (%" PRId64 ", 2): two weights of each row", path, shape,
                  sample->rows);
}

static int load_scores(const char *path, bool bf16, struct sample *sample) {
  struct npy array;
  const unsigned types = NPY_FLOATS | (bf16 ? (unsigned)NPY_U2 : 0);
  int status = sample->score_columns == 2 ? read_pairs(path, types, sample, &array)
                                          : maps_read_rows("--scores", path, types, &sample->maps, &array);
  if (status != TOOL_OK) return status;
  sample->scores = array.data;
  sample->score_dtype = dtype_of(array.type);
  if (array.type == NPY_F8) { /* in place: the narrow element lies below */
    for (int64_t at = 0; at < array.count; at++)
      number_put(TARE_DTYPE_F32, array.data, at, number_at(TARE_DTYPE_F64, array.data, at));
    sample->score_dtype = TARE_DTYPE_F32;
  }
  return check_rows("--scores", path, &array, sample); /* the library checks the scores that count */
}

static int load_row_weights(const char *path, struct sample *sample) {
  struct npy array;
  int status = maps_read_rows("--row-weights", path, NPY_FLOATS, &sample->maps, &array);
  if (status != TOOL_OK) return status;
  status = check_rows("--row-weights", path, &array, sample);
  if (status == TOOL_OK) {
    sample->row_weights = malloc(sizeof(float) * (size_t)(array.count ? array.count : 1));
    if (!sample->row_weights) status = complain("--row-weights %s: out of memory", path);
  }
  for (int64_t row = 0; status == TOOL_OK && row < array.count; row++) {
    double weight = number_at(dtype_of(array.type), array.data, row);
    float narrow = sample->row_weights[row] = (float)weight;
    bool lost = isfinite(weight) && (!isfinite(narrow) || (weight != 0 && narrow == 0));
    if (lost)
      status = complain("--row-weights %s: found %g in row %" PRId64 ", expected a number within the range of f32",
                        path, weight, row);
  }
  free(array.data);
  return status;
}

static int allocate_classes(const char *role, const char *path, const struct sample *sample, float **values) {
  *values = malloc(sizeof(float) * (size_t)sample->classes);
  return *values ? TOOL_OK : complain("%s %s: out of memory", role, path);
}

/* What Seesaw loss knows of the samples seen so far. */
static int load_log_counts(const char *path, const struct counts *counts, struct sample *sample) {
  int status = allocate_classes("--class-counts", path, sample, &sample->log_counts);
  for (int64_t cls = 0; status == TOOL_OK && cls < counts->classes; cls++) {
    if (!(counts->real[cls] >= 0))
      return complain("--class-counts %s: found %g for class %" PRId64 ", expected a count", path, counts->real[cls],
                      cls);
    sample->log_counts[cls] = counts->real[cls] > 1 ? (float)log(counts->real[cls]) : 0;
  }
  return status;
}

/* tare_logit_offsets and tare_ldam_margins. */
typedef tare_status form_of_counts(int64_t classes, const double *counts, double parameter, int32_t empty,
                                   float *values);

/* What the library forms of the counts and the parameter that `option` gives. */
static int load_formed(const struct eval_options *options, const struct counts *counts, const struct sample *sample,
                       form_of_counts *form, const char *option, double parameter, float **values) {
  const char *path = options->class_counts;
  int status = allocate_classes("--class-counts", path, sample, values);
  if (status == TOOL_OK && form(counts->classes, counts->real, parameter, options->empty_classes, *values))
    status = complain("--class-counts %s with %s: %s", path, option, tare_error_text(NULL));
  return status;
}

/* Class-balanced weights, offsets of logit adjustment, logarithms, margins, or some of these. */
static int load_counts(const struct eval_options *options, struct sample *sample) {
  const char *path = options->class_counts;
  struct counts counts;
  int status = counts_read(path, &counts);
  if (status != TOOL_OK) return status;
  if (counts.classes != sample->classes) {
    status = complain("--class-counts %s: found %" PRId64 " counts, expected %" PRId64 ", one for each class", path,
                      counts.classes, sample->classes);
  }
  if (status == TOOL_OK && options->has_beta) {
    status = allocate_classes("--class-counts", path, sample, &sample->class_weights);
    if (status == TOOL_OK) status = counts_weigh(path, &counts, options->beta, sample->class_weights);
  }
  if (status == TOOL_OK && options->has_tau)
    status = load_formed(options, &counts, sample, tare_logit_offsets, "--tau", options->tau, &sample->offset);
  if (status == TOOL_OK && loss_has(options->loss.kind, "log_counts")) status = load_log_counts(path, &counts, sample);
  if (status == TOOL_OK && loss_has(options->loss.kind, "margins"))
    status =
        load_formed(options, &counts, sample, tare_ldam_margins, "--max-margin", options->max_margin, &sample->margins);
  counts_free(&counts);
  return status;
}

/* One number for each class. */
static int load_numbers(const char *role, const char *path, struct sample *sample, float **numbers) {
  struct npy array;
  int status = npy_read(role, path, NPY_FLOATS, 1, &array);
  if (status != TOOL_OK) return status;
  if (array.shape[0] != sample->classes) {
    status = complain("%s %s: found %" PRId64 " numbers, expected %" PRId64 ", one for each class", role, path,
                      array.shape[0], sample->classes);
  }
  if (status == TOOL_OK) status = allocate_classes(role, path, sample, numbers);
  for (int64_t cls = 0; status == TOOL_OK && cls < sample->classes; cls++)
    (*numbers)[cls] = (float)number_at(dtype_of(array.type), array.data, cls);
  free(array.data);
  return status;
}

static int load_columns(const struct eval_options *options, struct sample *sample) {
  int status = TOOL_OK;
  for (int which = 0; status == TOOL_OK && which < COLUMN_VECTORS; which++)
    if (options->columns[which])
      status = load_numbers(columns_option(which), options->columns[which], sample, &sample->columns[which]);
  return status;
}

static int load_class_mask(const char *path, struct sample *sample) {
  struct npy array;
  int status = npy_read("--class-mask", path, NPY_U1, NPY_ANY_DIMENSIONS, &array);
  if (status != TOOL_OK) return status;
  const bool of_images = array.dimensions == 2;
  if ((array.dimensions == 1 || of_images) && array.shape[array.dimensions - 1] == sample->classes &&
      (!of_images || array.shape[0] == sample->images)) {
    sample->class_mask = array.data;
    sample->mask_images = of_images ? sample->images : 1;
    return TOOL_OK;
  }
  char shape[128];
  npy_print_shape(&array, shape, sizeof shape);
  free(array.data);
  return complain("--class-mask %s: found shape %s, expected (%" PRId64 ",) or (%" PRId64 ", %" PRId64
                  "): classes, or images and classes%s",
                  path, shape, sample->classes, sample->images, sample->classes,
                  sample->images == 1 ? "; --images says how many images there are" : "");
}

/* GHM-R's classes are columns of boxes, not what its labels count: any class a detector has means that the row
 * counts. */
static int fold_box_labels(struct sample *sample) {
  if (sample->label_dtype == TARE_LABEL_DTYPE_I32 && sample->first_label < INT32_MIN) {
    return complain("--first-label %" PRId64 ": the labels are int32 and cannot have this value", sample->first_label);
  }
  for (int64_t row = 0; row < sample->rows; row++) {
    int64_t label = label_at(sample->label_dtype, sample->labels, row);
    if (label == sample->background_label || label == sample->ignore_label || label < sample->first_label) continue;
    if (sample->label_dtype == TARE_LABEL_DTYPE_I64)
      ((int64_t *)sample->labels)[row] = sample->first_label;
    else
      ((int32_t *)sample->labels)[row] = (int32_t)sample->first_label;
  }
  return TOOL_OK;
}

/* Adds the rows of a level behind those that are there. Takes its arrays. */
static int append_level(const char *path, struct sample *part, struct sample *sample) {
  if (part->dtype != sample->dtype || part->classes != sample->classes)
    return complain("--logits %s: found %" PRId64 " classes of %s, expected %" PRId64 " of %s, as the first level has",
                    path, part->classes, dtype_name(part->dtype), sample->classes, dtype_name(sample->dtype));
  if (!part->labels != !sample->labels || (part->labels && part->label_dtype != sample->label_dtype))
    return complain("--labels of %s: expected the type of the first level's labels", path);
  const size_t row = (size_t)sample->classes * dtype_size(sample->dtype);
  const size_t label = sample->label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
  const size_t before = (size_t)sample->rows, added = (size_t)part->rows;
  char *logits = realloc(sample->logits, (before + added) * row + 1);
  if (logits) sample->logits = logits;
  char *labels = logits && part->labels ? realloc(sample->labels, (before + added) * label + 1) : NULL;
  if (labels) sample->labels = labels;
  if (!logits || (part->labels && !labels)) return complain("--logits %s: no memory to join the levels", path);
  memcpy(logits + before * row, part->logits, added * row);
  if (labels) memcpy(labels + before * label, part->labels, added * label);
  sample->rows += part->rows;
  sample->level_rows[sample->level_count++] = part->rows;
  return TOOL_OK;
}

/* The levels of a head, joined to one array of rows: level after level, as the library orders them. */
static int load_levels(const struct eval_options *options, bool bf16, struct sample *sample) {
  const bool each = options->more_labels[0];
  sample->level_rows[sample->level_count++] = sample->rows;
  int status = each ? load_labels(options->labels, sample) : TOOL_OK;
  for (int32_t index = 0; index < TARE_MAX_LEVELS - 1 && options->more_logits[index]; index++) {
    const char *path = options->more_logits[index];
    struct sample part;
    sample_init(&part);
    part.maps = (struct maps){.layout = options->layout, .classes = options->classes};
    if (status == TOOL_OK) status = load_logits("--logits", path, bf16, &part);
    if (status == TOOL_OK && each) status = load_labels(options->more_labels[index], &part);
    if (status == TOOL_OK) status = append_level(path, &part, sample);
    sample_free(&part);
  }
  for (int32_t index = 0; index < TARE_MAX_LEVELS; index++)
    sample->level_weights[index] = options->level_weight_count ? options->level_weights[index] : 1;
  sample->maps = (struct maps){.layout = AXES_ROWS};
  sample->images = 1;
  return status;
}

int load_sample(const struct eval_options *options, struct sample *sample, int32_t *file_dtype) {
  sample_init(sample);
  bool bf16 = options->dtype == TARE_DTYPE_BF16;
  sample->maps.layout = options->layout;
  sample->maps.classes = options->classes;
  sample->images = options->images;
  sample->score_columns = loss_described(options->loss.kind).takes_bins == 2 ? 2 : 1;
  int status = load_logits("--logits", options->logits, bf16, sample);
  if (status != TOOL_OK) return status;
  if (options->more_logits[0]) status = load_levels(options, bf16, sample);
  if (status != TOOL_OK) return status;
  *file_dtype = sample->dtype;
  sample->background_weight = options->background_weight;
  sample->hard_negatives = options->hard_negatives;
  sample->least_negatives = options->least_negatives;
  sample->hard_rows = options->hard_rows;
  sample->hard_fraction = options->hard_fraction;
  status = check_images(sample);
  if (status != TOOL_OK) return status;
  sample->first_label = options->first_label;
  sample->background_label = options->background;
  sample->ignore_label = options->ignore;
  if (options->dtype >= 0) status = sample_convert(sample, options->dtype);
  if (status == TOOL_OK && options->labels && !sample->labels) status = load_labels(options->labels, sample);
  if (status == TOOL_OK && options->targets) status = load_targets(options->targets, bf16, sample);
  if (status == TOOL_OK && options->scores) status = load_scores(options->scores, bf16, sample);
  if (status == TOOL_OK && options->row_weights) status = load_row_weights(options->row_weights, sample);
  if (status == TOOL_OK && options->class_counts) status = load_counts(options, sample);
  if (status == TOOL_OK && options->offsets)
    status = load_numbers("--offsets", options->offsets, sample, &sample->offset);
  if (status == TOOL_OK) status = load_columns(options, sample);
  if (status == TOOL_OK && options->class_mask) status = load_class_mask(options->class_mask, sample);
  if (status == TOOL_OK && options->loss.kind == TARE_LOSS_GHM_R) status = fold_box_labels(sample);
  return status;
}
