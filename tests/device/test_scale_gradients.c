/* SPDX-License-Identifier: Apache-2.0 */
/* tare_scale_gradients: products rounded once, at any alignment, and nothing beside the arrays is touched. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "support/devices.h"
#include "support/numbers.h"
#include "support/random.h"

enum { ARRAYS = 5, LARGEST = 40000, BESIDE = 8 };

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
/* Shorter than a vector, across pieces and tiles, and none. The k-th begins k elements behind an aligned address. */
static const int64_t counts[ARRAYS] = {LARGEST, 1, 16385, 0, 11};

static const double special[] = {0.0, -0.0, (double)INFINITY, -(double)INFINITY, (double)NAN, 1e-45, 6e-8, 65504.0};

typedef struct arrays {
  int32_t dtype;
  unsigned char *before, *after; /* on the host */
  unsigned char *memory;         /* on the device */
  size_t bytes;
  size_t first[ARRAYS]; /* elements */
} arrays;

static arrays make_arrays(const test_device *device, int32_t dtype) {
  arrays a = {.dtype = dtype};
  size_t end = 0;
  for (size_t i = 0; i < ARRAYS; i++) {
    a.first[i] = end + BESIDE + i;
    end = (a.first[i] + (size_t)counts[i] + BESIDE + 15) / 16 * 16;
  }
  a.bytes = end * dtype_size(dtype);
  a.before = malloc(a.bytes);
  a.after = malloc(a.bytes);
  a.memory = device->allocate(a.bytes);
  random_source random = random_from(71 + (uint64_t)dtype);
  for (size_t i = 0; i < end; i++) {
    const size_t which = (size_t)random_below(&random, 100);
    store_element(a.before, i, dtype, which < 8 ? special[which] : random_normal(&random));
  }
  return a;
}

static void free_arrays(const test_device *device, arrays *a) {
  free(a->before);
  free(a->after);
  device->release(a->memory);
}

static tare_status scale(const test_device *device, const arrays *a, const float *factor) {
  void *gradients[ARRAYS];
  for (size_t i = 0; i < ARRAYS; i++) gradients[i] = a->memory + a->first[i] * dtype_size(a->dtype);
  return tare_scale_gradients(device->context, (tare_dtype)a->dtype, ARRAYS, gradients, counts, factor, NULL);
}

static double product(int32_t dtype, double x, float factor) {
  if (x == 0) return x;
  if (dtype == TARE_DTYPE_F64) return x * (double)factor;
  return round_to_dtype(dtype, (double)((float)x * factor));
}

static bool in_an_array(const arrays *a, size_t at) {
  for (size_t i = 0; i < ARRAYS; i++)
    if (at >= a->first[i] && at < a->first[i] + (size_t)counts[i]) return true;
  return false;
}

static void expect_scaled(const test_device *device, const arrays *a, float factor) {
  float *const on_device = device->allocate(sizeof factor);
  device->upload(on_device, &factor, sizeof factor);
  device->upload(a->memory, a->before, a->bytes);
  cr_assert_eq(scale(device, a, on_device), TARE_STATUS_OK, "%s", tare_error_text(device->context));
  cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);
  device->download(a->after, a->memory, a->bytes);
  for (size_t i = 0; i < a->bytes / dtype_size(a->dtype); i++) {
    const double x = load_element(a->before, i, a->dtype), found = load_element(a->after, i, a->dtype);
    const double want = in_an_array(a, i) ? product(a->dtype, x, factor) : x;
    cr_assert(isnan(want) ? isnan(found) : found == want, "%s %s: element %zu: %g * %g is %.17g, not %.17g",
              device->name, dtype_name(a->dtype), i, x, (double)factor, want, found);
  }
  device->release(on_device);
}

static const float factors[] = {1.0f, 0.5f, -3.1f, 0.0f, 1e30f, INFINITY, NAN};

Test(scale_gradients, products_are_rounded_once) {
  FOR_EACH_DEVICE(device) for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
    if (device->kind == TARE_DEVICE_CUDA && dtypes[d] == TARE_DTYPE_F64) continue;
    arrays a = make_arrays(device, dtypes[d]);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) expect_scaled(device, &a, factors[i]);
    free_arrays(device, &a);
  }
}

Test(scale_gradients, one_leaves_every_bit) {
  FOR_EACH_DEVICE(device) {
    arrays a = make_arrays(device, TARE_DTYPE_F32);
    memset(a.before, 0xff, 64 * sizeof(float)); /* a NaN with a payload */
    expect_scaled(device, &a, 1.0f);
    cr_assert_arr_eq(a.after, a.before, a.bytes);
    free_arrays(device, &a);
  }
}

#define EXPECT_REFUSED(status, text, call)                                                 \
  do {                                                                                     \
    cr_expect_eq((call), (status));                                                        \
    cr_expect_not_null(strstr(tare_error_text(device->context), (text)), "'%s', not '%s'", \
                       tare_error_text(device->context), (text));                          \
  } while (0)

Test(scale_gradients, wrong_arguments) {
  FOR_EACH_DEVICE(device) {
    float one[4] = {1, 1, 1, 1}; /* never read */
    void *gradients[2] = {one, one + 2}, *odd[2] = {one, (char *)one + 2}, *none[2] = {one, NULL};
    const int64_t two[2] = {2, 2}, negative[2] = {2, -1};
    tare_context *const c = device->context;
    const tare_status invalid = TARE_STATUS_INVALID_ARGUMENT;
    const tare_dtype f32 = TARE_DTYPE_F32;
    cr_expect_eq(tare_scale_gradients(NULL, f32, 2, gradients, two, one, NULL), invalid);
    EXPECT_REFUSED(invalid, "dtype is 9", tare_scale_gradients(c, (tare_dtype)9, 2, gradients, two, one, NULL));
    EXPECT_REFUSED(invalid, "array_count is 0; it must be in [1,16]",
                   tare_scale_gradients(c, f32, 0, gradients, two, one, NULL));
    EXPECT_REFUSED(invalid, "array_count is 17", tare_scale_gradients(c, f32, 17, gradients, two, one, NULL));
    EXPECT_REFUSED(invalid, "gradients is NULL", tare_scale_gradients(c, f32, 2, NULL, two, one, NULL));
    EXPECT_REFUSED(invalid, "counts is NULL", tare_scale_gradients(c, f32, 2, gradients, NULL, one, NULL));
    EXPECT_REFUSED(invalid, "factor is NULL", tare_scale_gradients(c, f32, 2, gradients, two, NULL, NULL));
    EXPECT_REFUSED(invalid, "factor is ", tare_scale_gradients(c, f32, 2, gradients, two, odd[1], NULL));
    EXPECT_REFUSED(invalid, "gradients[1] is NULL", tare_scale_gradients(c, f32, 2, none, two, one, NULL));
    EXPECT_REFUSED(invalid, "aligned to 4", tare_scale_gradients(c, f32, 2, odd, two, one, NULL));
    EXPECT_REFUSED(invalid, "counts[1] is -1", tare_scale_gradients(c, f32, 2, gradients, negative, one, NULL));
    if (device->kind == TARE_DEVICE_CUDA)
      EXPECT_REFUSED(TARE_STATUS_UNSUPPORTED, "TARE_DTYPE_F64",
                     tare_scale_gradients(c, TARE_DTYPE_F64, 1, gradients, (int64_t[]){0}, one, NULL));
  }
}
