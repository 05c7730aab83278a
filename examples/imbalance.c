/* SPDX-License-Identifier: Apache-2.0 */
/* Whose gradient is it? A batch like a young detector's: 100,000 anchors, 20 classes, 300 anchors on objects. For each
 * loss, the share of the gradient (sum of absolute values) that the few objects get against the many background rows.
 *
 *   imbalance [FOLDER]   with a folder, also writes the batch there, as logits.npy and labels.npy */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <tare.h>

enum { ROWS = 100000, CLASSES = 20, OBJECTS = 300 };

static float logits[ROWS * CLASSES], gradient[ROWS * CLASSES];
static int32_t labels[ROWS];

/* Uniform in (0,1), from a 64-bit linear congruential generator: the same batch on every machine. */
static double uniform(void) {
  static uint64_t state = 1;
  state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(double mean, double deviation) {
  return mean + deviation * sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* Background logits are around -4.6, where RetinaNet's bias starts. An object's class is around 0. */
static void fill(void) {
  for (int64_t row = 0; row < ROWS; row++) {
    labels[row] = -1;
    for (int64_t c = 0; c < CLASSES; c++) logits[row * CLASSES + c] = (float)normal(-4.6, 1.5);
  }
  for (int object = 0; object < OBJECTS; object++) {
    const int64_t row = (int64_t)(uniform() * ROWS);
    labels[row] = (int32_t)(uniform() * CLASSES);
    logits[row * CLASSES + labels[row]] = (float)normal(0, 2);
  }
}

static int report(tare_context *context, int32_t kind) {
  tare_level level;
  tare_batch batch;
  tare_loss_spec loss;
  tare_output output;
  double value = 0, objects = 0, background = 0;
  tare_level_init_rows(&level, ROWS, CLASSES);
  level.logits = logits, level.labels = labels, level.gradient = gradient;
  tare_batch_init(&batch), batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  tare_output_init(&output), output.loss = &value, output.loss_dtype = TARE_DTYPE_F64;
  if (tare_evaluate(context, &loss, &batch, &output, NULL) != TARE_STATUS_OK) {
    fprintf(stderr, "%s: %s\n", tare_loss_name(kind), tare_error_text(context));
    return 1;
  }
  for (int64_t row = 0; row < ROWS; row++)
    for (int64_t c = 0; c < CLASSES; c++)
      *(labels[row] < 0 ? &background : &objects) += fabs((double)gradient[row * CLASSES + c]);
  printf("%-15s %12.2f %11.1f %% %11.1f %%\n", tare_loss_name(kind), value, 100 * objects / (objects + background),
         100 * background / (objects + background));
  return 0;
}

/* NumPy's format, version 1.0: a magic string, the length of a header padded to 64 bytes, the header, the data. */
static int write_npy(const char *folder, const char *name, const char *type, const char *shape, const void *data,
                     size_t size, size_t count) {
  char path[4096], text[118];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  const int length =
      snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, shape);
  FILE *file = fopen(path, "wb");
  if (!file) {
    perror(path);
    return 1;
  }
  fprintf(file, "%cNUMPY%c%c%c%c%s%*s\n", 0x93, 1, 0, 118, 0, text, 117 - length, "");
  const size_t written = fwrite(data, size, count, file);
  if (fclose(file) != 0 || written != count) {
    perror(path);
    return 1;
  }
  return 0;
}

int main(int count, char **arguments) {
  tare_context *context;
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU; /* the arrays are ordinary memory */
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) {
    fprintf(stderr, "%s\n", tare_error_text(NULL));
    return 1;
  }
  fill();
  printf("%-15s %12s %13s %13s\n", "loss", "sum", "objects", "background");
  int failed = report(context, TARE_LOSS_SIGMOID_CE);
  failed |= report(context, TARE_LOSS_SIGMOID_FOCAL);
  failed |= report(context, TARE_LOSS_SIGMOID_POLY1);
  failed |= report(context, TARE_LOSS_GHM_C);
  tare_context_destroy(context);
  if (count > 1) {
    char shape[64];
    snprintf(shape, sizeof shape, "%d, %d", ROWS, CLASSES);
    failed |= write_npy(arguments[1], "logits.npy", "<f4", shape, logits, sizeof *logits, ROWS * CLASSES);
    snprintf(shape, sizeof shape, "%d,", ROWS);
    failed |= write_npy(arguments[1], "labels.npy", "<i4", shape, labels, sizeof *labels, ROWS);
  }
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
