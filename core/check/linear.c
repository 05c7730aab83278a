/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the classifier of a fused head against the problem it goes with. */
#include "core/backend.h"
#include "core/structs.h"
#include "core/view.h"

static tare_status check_scalars(const tare_linear *linear, tare_error *error) {
  if (linear->dimensions < 1 || linear->dimensions > INT32_MAX)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "linear->dimensions is %lld; it must be in 1..2147483647",
                     (long long)linear->dimensions);
  if (linear->dtype != TARE_DTYPE_F32 && linear->dtype != TARE_DTYPE_F16 && linear->dtype != TARE_DTYPE_BF16)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "linear->dtype is %d; it must be TARE_DTYPE_F32 (0), TARE_DTYPE_F16 (1) or TARE_DTYPE_BF16 (2)",
                     linear->dtype);
  if (linear->accumulate != 0 && linear->accumulate != 1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "linear->accumulate is %d; it must be 0 or 1",
                     linear->accumulate);
  const int64_t strides[2] = {linear->features_stride, linear->features_gradient_stride};
  for (int i = 0; i < 2; i++)
    if (strides[i] < linear->dimensions || strides[i] > INT32_MAX)
      return tare_fail(
          error, TARE_STATUS_INVALID_ARGUMENT, "linear->%s is %lld; it must be in %lld (dimensions)..2147483647",
          i ? "features_gradient_stride" : "features_stride", (long long)strides[i], (long long)linear->dimensions);
  return TARE_STATUS_OK;
}

static tare_status check_sizes(const tare_linear *linear, const tare_problem *problem, tare_error *error) {
  const int64_t most = (int64_t)1 << 58, classes = problem->batch.classes;
  const int64_t stride = linear->features_gradient && linear->features_gradient_stride > linear->features_stride
                             ? linear->features_gradient_stride
                             : linear->features_stride;
  if (problem->rows > most / stride || linear->dimensions > most / classes)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "linear->dimensions is %lld and the wider row stride %lld, with %lld rows and %lld classes; "
                     "each array must have at most 2^58 elements",
                     (long long)linear->dimensions, (long long)stride, (long long)problem->rows, (long long)classes);
  return TARE_STATUS_OK;
}

/** One array of the call. */
typedef struct place {
  const char *owner, *name;
  const void *data; /* NULL: absent */
  int is_output;
  tare_footprint footprint;
} place;

enum { FEATURES, WEIGHTS, BIAS, FEATURES_GRADIENT, WEIGHTS_GRADIENT, BIAS_GRADIENT, OWN_ARRAYS };

static place place_of(const char *name, const void *data, int is_output, int64_t bytes, int64_t rows, int64_t stride,
                      int64_t columns) {
  const tare_footprint f = {.data = (intptr_t)data,
                            .element = bytes,
                            .length = {rows, columns, 1, 1, 1},
                            .stride = {stride * bytes, bytes, 0, 0, 0}};
  return (place){"linear->", name, rows ? data : NULL, is_output, f};
}

static void own_places(const tare_linear *l, const tare_problem *problem, place *places) {
  const int64_t bytes = tare_dtype_bytes(l->dtype), n = problem->rows, c = problem->batch.classes, d = l->dimensions;
  places[FEATURES] = place_of("features", l->features, 0, bytes, n, l->features_stride, d);
  places[WEIGHTS] = place_of("weights", l->weights, 0, bytes, c, d, d);
  places[BIAS] = place_of("bias", l->bias, 0, bytes, 1, 0, c);
  places[FEATURES_GRADIENT] =
      place_of("features_gradient", l->features_gradient, 1, bytes, n, l->features_gradient_stride, d);
  places[WEIGHTS_GRADIENT] = place_of("weights_gradient", l->weights_gradient, 1, 4, c, d, d);
  places[BIAS_GRADIENT] = place_of("bias_gradient", l->bias_gradient, 1, 4, 1, 0, c);
}

static tare_status check_presence(const tare_linear *linear, const tare_problem *problem, const place *places,
                                  tare_error *error) {
  if (problem->rows && !linear->features)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "linear->features is NULL");
  if (!linear->weights) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "linear->weights is NULL");
  for (int i = 0; i < OWN_ARRAYS; i++)
    if ((uintptr_t)places[i].data % (uintptr_t)places[i].footprint.element)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "linear->%s is %p; it must be aligned to %d bytes",
                       places[i].name, places[i].data, (int)places[i].footprint.element);
  return TARE_STATUS_OK;
}

static int is_in_place(const tare_linear *linear, const place *places, int i, int j) {
  return i == FEATURES && j == FEATURES_GRADIENT && places[i].data == places[j].data &&
         linear->features_stride == linear->features_gradient_stride;
}

/** Compares every output of the head with all arrays, and every array that is an output besides with the head's. */
static tare_status check_overlaps(const tare_linear *linear, const tare_problem *problem, place *places,
                                  tare_error *error) {
  int count = OWN_ARRAYS;
  for (int name = TARE_ARRAY_LABELS; problem->rows && name < TARE_ARRAY_ROW_INDEX; name++)
    places[count++] =
        (place){name == TARE_ARRAY_CLASS_MASK ? "batch->" : "batch->levels[0].", tare_array_text(name),
                problem->view[0].array[name].data, name == TARE_ARRAY_ROW_LOSS || name == TARE_ARRAY_ELEMENT_LOSS,
                tare_view_footprint(problem, &problem->view[0], name)};
  places[count] = place_of("class_sums", problem->output.class_sums, 1, (int64_t)sizeof(tare_class_sums), 1, 0,
                           problem->batch.classes);
  places[count++].owner = "output->";
  for (int i = 0; i < OWN_ARRAYS; i++)
    for (int j = i + 1; j < count; j++) {
      const place *a = &places[i], *b = &places[j];
      if (!a->data || !b->data || !(a->is_output || b->is_output) || is_in_place(linear, places, i, j)) continue;
      if (tare_footprints_overlap(&a->footprint, &b->footprint))
        return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                         "%s%s (%p) overlaps %s%s (%p); features_gradient may be features itself, with the same "
                         "stride; no other array may overlap an output",
                         a->owner, a->name, a->data, b->owner, b->name, b->data);
    }
  return TARE_STATUS_OK;
}

tare_status tare_linear_build(tare_linear *linear, const tare_linear *theirs, const tare_problem *problem,
                              tare_error *error) {
  place places[OWN_ARRAYS + TARE_ARRAY_COUNT];
  tare_linear_init(linear, 0);
  tare_status status = tare_read_struct(linear, theirs, &tare_linear_layout, error);
  if (!status) status = check_scalars(linear, error);
  if (!status) status = check_sizes(linear, problem, error);
  if (status) return status;
  own_places(linear, problem, places);
  status = check_presence(linear, problem, places, error);
  return status ? status : check_overlaps(linear, problem, places, error);
}
