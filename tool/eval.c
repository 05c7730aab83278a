/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare eval`: one loss and its gradient on arrays from files. Everything is computed and written under temporary names
 * first; the report comes next; only then do the output files get their names.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "class_sums.h"
#include "load.h"
#include "norms.h"
#include "plot.h"
#include "provenance.h"
#include "report.h"
#include "run.h"
#include "tool/base/convert.h"
#include "tool/base/npy.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "verbs.h"

struct evaluation {
  struct eval_options options;
  json_t *command; /* as it was given */
  struct sample sample;
  int32_t file_dtype;
  struct device device;
  struct run run;
  struct result result;
  struct timing timing;
  struct histogram histogram;                      /* of a GHM loss, or for the plot */
  struct curves curves;                            /* for the plot of GHM-C */
  tare_class_sums *class_sums;                     /* [classes], if they are wanted */
  int64_t *norms;                                  /* [norm_bins], if they are wanted */
  FILE *gradient_file, *row_loss_file, *plot_file; /* of the options that were given */
};

/* Opened before the computation, so that a file that cannot be written is reported at once. */
static int open_output(const char *option, const char *path, FILE **file) {
  if (path) *file = outfile_open(option, path);
  return !path || *file ? TOOL_OK : TOOL_FAILED;
}

static int open_outputs(struct evaluation *eval) {
  int status = open_output("--grad-out", eval->options.grad_out, &eval->gradient_file);
  if (status == TOOL_OK) status = open_output("--row-loss-out", eval->options.row_loss_out, &eval->row_loss_file);
  if (status == TOOL_OK) status = open_output("--plot", eval->options.plot, &eval->plot_file);
  return status;
}

static int compute(struct evaluation *eval) {
  struct run *run = &eval->run;
  const tare_loss_spec *loss = &eval->options.loss;
  bool sorts = kind_is_ghm(loss->kind) && loss->ghm.density == TARE_GHM_DENSITY_EXACT;
  progress_begin(sorts ? "sorting gradient norms for the exact density, and evaluating" : "evaluating");
  int status = run_prepare(run, &eval->device, &eval->sample, &eval->options.loss, true);
  if (status == TOOL_OK && eval->options.row_loss_out) status = run_add_row_loss(run);
  if (status != TOOL_OK) return status;
  const struct eval_options *options = &eval->options;
  run_divide(run, &(struct divisor){options->normalizer, options->normalizer_value, options->normalizer_addend,
                                    options->normalizer_minimum});
  status = run_once(run);
  if (status == TOOL_OK) status = run_result(run, &eval->result);
  if (status == TOOL_OK) status = run_time(run, 0.15, &eval->timing);
  progress_end();
  return status;
}

/* A unit-region run has counts and weights in its state. Everything else is measured, and so is the curve of a plot. */
static int look_at_gradients(struct evaluation *eval) {
  const tare_loss_spec *loss = &eval->options.loss;
  bool ghm = kind_is_ghm(loss->kind);
  if (!ghm && !eval->options.plot) return TOOL_OK;
  if (ghm && loss->ghm.density == TARE_GHM_DENSITY_UNIT_REGION && !eval->options.plot) {
    return histogram_of_run(&eval->run, &eval->histogram);
  }
  progress_begin("counting gradient norms");
  int status = histogram_measure(&eval->device, &eval->sample, loss, &eval->run.output, eval->result.divisor,
                                 ghm ? loss->ghm.bins : 30, &eval->histogram);
  if (status == TOOL_OK && loss->kind == TARE_LOSS_GHM_C) {
    status = curves_measure(&eval->device, &eval->sample, &eval->histogram, &eval->curves);
  }
  progress_end();
  return status;
}

/* -- output files -------------------------------------------------------------------------------------------------- */

static enum npy_type npy_type_of(int32_t dtype) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return NPY_F2;
    case TARE_DTYPE_BF16:
      return NPY_U2;
    case TARE_DTYPE_F64:
      return NPY_F8;
    default:
      return NPY_F4;
  }
}

static int write_gradient(const struct evaluation *eval) {
  const char *path = eval->options.grad_out;
  if (!path) return TOOL_OK;
  void *gradient;
  int status = run_gradient(&eval->run, &gradient);
  if (status != TOOL_OK) return status;
  int64_t shape[4];
  const int axes = maps_shape_of_elements(&eval->sample.maps, eval->sample.rows, eval->sample.classes, shape);
  status = maps_from_rows(&eval->sample.maps, gradient, dtype_size(eval->sample.dtype));
  if (status == TOOL_OK && npy_write(eval->gradient_file, npy_type_of(eval->sample.dtype), axes, shape, gradient) != 0)
    status = outfile_failed("--grad-out", path);
  free(gradient);
  return status;
}

static int write_row_loss(struct evaluation *eval) {
  const char *path = eval->options.row_loss_out;
  if (!path) return TOOL_OK;
  int64_t rows = eval->sample.rows, shape[4];
  const int axes = maps_shape_of_rows(&eval->sample.maps, rows, shape);
  int32_t dtype = eval->sample.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
  size_t bytes = (size_t)rows * dtype_size(dtype);
  void *losses = malloc(bytes ? bytes : 1);
  if (!losses) return complain("--row-loss-out %s: out of memory", path);
  device_get(&eval->device, losses, eval->run.row_loss, bytes);
  for (int64_t row = 0; dtype == TARE_DTYPE_F64 && row < rows; row++) { /* in place: the narrow element lies below */
    number_put(TARE_DTYPE_F32, losses, row, number_at(TARE_DTYPE_F64, losses, row));
  }
  int status = TOOL_OK;
  if (npy_write(eval->row_loss_file, NPY_F4, axes, shape, losses) != 0) status = outfile_failed("--row-loss-out", path);
  free(losses);
  return status;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* -- the report ---------------------------------------------------------------------------------------------------- */

static const char *normalizer_name(const struct evaluation *eval) {
  if (kind_is_ghm(eval->options.loss.kind)) return "gradient density";
  switch (eval->options.normalizer) {
    case TARE_NORMALIZER_ELEMENTS:
      return "elements";
    case TARE_NORMALIZER_ROWS:
      return "rows";
    case TARE_NORMALIZER_POSITIVES:
      return "positives";
    case TARE_NORMALIZER_TARGETS:
      return "targets";
    case TARE_NORMALIZER_ONES:
      return "ones";
    case TARE_NORMALIZER_WEIGHTS:
      return "weights";
    case TARE_NORMALIZER_VALUE:
      return "given";
    default:
      return "sum";
  }
}

static int write_plot(struct evaluation *eval) {
  const char *path = eval->options.plot;
  if (!path) return TOOL_OK;
  const int32_t kind = eval->options.loss.kind;
  char result[128];
  if (kind_is_ghm(kind))
    snprintf(result, sizeof result, "loss %.6g", eval->result.loss);
  else
    snprintf(result, sizeof result, "loss %.6g, divided by %.6g (%s)", eval->result.loss, eval->result.divisor,
             normalizer_name(eval));
  struct plot plot = {
      .loss = &eval->options.loss,
      .source = base_name(eval->options.logits),
      .result = result,
      .element = kind == TARE_LOSS_GHM_R ? "coordinates"
                 : kind_is_softmax(kind) ? "rows"
                                         : "logits",
      .plain = kind == TARE_LOSS_GHM_R ? "unweighted ASL1: g" : "cross-entropy: g",
      .histogram = &eval->histogram,
      .curves = eval->curves.bins ? &eval->curves : NULL,
  };
  return plot_draw(eval->plot_file, path, &plot);
}

static double gigabytes_per_second(const struct evaluation *eval) {
  return eval->timing.seconds > 0 ? run_bytes(&eval->run) / eval->timing.seconds * 1e-9 : 0;
}

static void print_facts(const struct evaluation *eval) {
  const struct result *result = &eval->result;
  const struct sample *sample = &eval->sample;
  const tare_context_description *about = &eval->device.about;
  struct table table = {.alignment = "ll"};
  table_cell(&table, "loss");
  table_cell(&table, "%.17g  (%s)", result->loss, tare_loss_name(eval->options.loss.kind));
  table_cell(&table, "normalizer");
  table_cell(&table, "%.17g  (%s)", result->divisor, normalizer_name(eval));
  table_cell(&table, "logits");
  table_cell(&table, "%s x %s %s%s%s", grouped(sample->rows).of, grouped(sample->classes).of, dtype_name(sample->dtype),
             eval->file_dtype == sample->dtype ? "" : ", rounded to nearest even from ",
             eval->file_dtype == sample->dtype ? "" : dtype_name(eval->file_dtype));
  table_cell(&table, "rows");
  table_cell(&table, "%s positive, %s background, %s ignored; %s count", grouped(result->counts.positives).of,
             grouped(result->counts.background).of, grouped(result->counts.ignored).of,
             grouped(result->counts.counted).of);
  table_cell(&table, "gradient");
  table_cell(&table, "L1 norm %.9g, L2 norm %.9g", result->grad_l1, result->grad_l2);
  table_cell(&table, "time");
  table_cell(&table, "%.3f ms for loss and gradient, %.2f GB/s", eval->timing.seconds * 1e3,
             gigabytes_per_second(eval));
  table_cell(&table, "device");
  if (about->device == TARE_DEVICE_CPU) {
    table_cell(&table, "cpu: %s, %s, %d thread%s", about->device_name, about->instruction_set, about->threads,
               about->threads == 1 ? "" : "s");
  } else {
    table_cell(&table, "%s: %s, %s", device_kind_name(about->device), about->device_name, about->instruction_set);
  }
  if (*about->reason) {
    table_cell(&table, "not a GPU");
    table_cell(&table, "%s", about->reason);
  }
  table_print(&table, false);
}

static void print_levels(const struct evaluation *eval) {
  const struct sample *sample = &eval->sample;
  struct table table = {.alignment = "rrrr"};
  if (!sample->level_count) return;
  static const char *const heads[] = {"level", "rows", "weight", "loss"};
  for (int index = 0; index < 4; index++) table_cell(&table, "%s", heads[index]);
  for (int32_t level = 0; level < sample->level_count; level++) {
    table_cell(&table, "%d", level);
    table_cell(&table, "%s", grouped(sample->level_rows[level]).of);
    table_cell(&table, "%.9g", sample->level_weights[level]);
    table_cell(&table, "%.17g", eval->result.level_losses[level]);
  }
  printf("\n  Levels; the loss is the sum of theirs:\n\n");
  table_print(&table, true);
}

static json_t *json_levels(const struct evaluation *eval) {
  json_t *rows = json_array(), *weights = json_array(), *losses = json_array();
  for (int32_t level = 0; level < eval->sample.level_count; level++) {
    json_append(rows, json_integer((json_int_t)eval->sample.level_rows[level]));
    json_append(weights, json_number(eval->sample.level_weights[level]));
    json_append(losses, json_number(eval->result.level_losses[level]));
  }
  return json_pack("{s:o, s:o, s:o}", "rows", rows, "weights", weights, "losses", losses);
}

static void print_report(const struct evaluation *eval) {
  print_facts(eval);
  print_levels(eval);
  int32_t kind = eval->options.loss.kind;
  if (kind_is_ghm(kind)) {
    printf("\n  %s %s by gradient norm; weight = N/GD, %s density:\n\n", grouped(eval->histogram.elements).of,
           kind == TARE_LOSS_GHM_R ? "coordinates" : "logits",
           eval->options.loss.ghm.density == TARE_GHM_DENSITY_EXACT ? "exact" : "unit-region");
    print_bars(&eval->histogram);
  }
  if (eval->class_sums) {
    printf("\n  Sums of each class, without the normalizer:\n\n");
    print_class_sums(eval->class_sums, eval->sample.classes);
  }
  if (eval->norms) {
    printf("\n  Elements by gradient norm |p-t|:\n\n");
    print_norms(eval->norms, eval->options.norm_bins);
  }
  const char *files[] = {eval->options.grad_out, eval->options.row_loss_out, eval->options.plot};
  static const char *const names[] = {"gradient", "row losses", "picture"};
  for (int index = 0; index < 3; index++) {
    if (files[index]) printf("%s  %s: %s\n", index == 0 || !files[0] ? "\n" : "", names[index], files[index]);
  }
}

static json_t *report_json(const struct evaluation *eval) {
  const struct result *result = &eval->result;
  const tare_context_description *about = &eval->device.about;
  json_t *object = json_pack(
      "{s:o, s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:s, s:i, s:s, s:o, s:o}", "loss",
      json_number(result->loss), "name", tare_loss_name(eval->options.loss.kind), "normalizer",
      json_number(result->divisor), "normalizer_kind", normalizer_name(eval), "rows", (json_int_t)eval->sample.rows,
      "classes", (json_int_t)eval->sample.classes, "positives", (json_int_t)result->counts.positives, "background",
      (json_int_t)result->counts.background, "ignored", (json_int_t)result->counts.ignored, "counted",
      (json_int_t)result->counts.counted, "grad_l1", json_number(result->grad_l1), "grad_l2",
      json_number(result->grad_l2), "device", device_kind_name(about->device), "device_name", about->device_name,
      "reason", about->reason, "instruction_set", about->instruction_set, "threads", about->threads, "dtype",
      dtype_name(eval->sample.dtype), "milliseconds", json_number(eval->timing.seconds * 1e3), "gigabytes_per_second",
      json_number(gigabytes_per_second(eval)));
  if (eval->file_dtype != eval->sample.dtype) {
    json_set(object, "converted_from", json_string(dtype_name(eval->file_dtype)));
  }
  if (kind_is_ghm(eval->options.loss.kind)) {
    json_set(object, "histogram", json_histogram(&eval->histogram));
  }
  provenance_add(object);
  json_set(object, "parameters", provenance_parameters(&eval->options.loss));
  json_set(object, "noise", provenance_noise(eval->timing.noise));
  json_set(object, "command", json_incref(eval->command));
  if (eval->sample.level_count) json_set(object, "levels", json_levels(eval));
  if (eval->norms) json_set(object, "norm_histogram", json_norms(eval->norms, eval->options.norm_bins));
  if (eval->class_sums) json_set(object, "class_sums", json_class_sums(eval->class_sums, eval->sample.classes));
  return object;
}

static int report(const struct evaluation *eval) {
  int status = TOOL_OK;
  if (eval->options.json)
    status = json_print(report_json(eval));
  else
    print_report(eval);
  return status == TOOL_OK ? finish_output() : status;
}

int verb_eval(int argc, char **argv) {
  struct evaluation eval = {.command = provenance_command(argc, argv)};
  int status = eval_options_read(&eval.options, argc, argv);
  if (status == TOOL_OK) status = device_open(&eval.device, eval.options.device, eval.options.threads);
  if (status != TOOL_OK) {
    json_decref(eval.command);
    return status;
  }
  progress_begin("reading");
  status = load_sample(&eval.options, &eval.sample, &eval.file_dtype);
  if (status == TOOL_OK) status = open_outputs(&eval);
  if (status == TOOL_OK) status = compute(&eval);
  if (status == TOOL_OK && eval.options.class_sums) status = class_sums_measure(&eval.run, &eval.class_sums);
  if (status == TOOL_OK && eval.options.norm_bins)
    status = norms_measure(&eval.run, eval.options.norm_bins, &eval.norms);
  if (status == TOOL_OK) status = look_at_gradients(&eval);
  if (status == TOOL_OK) status = write_gradient(&eval);
  if (status == TOOL_OK) status = write_row_loss(&eval);
  if (status == TOOL_OK) status = write_plot(&eval);
  if (status == TOOL_OK) status = outfile_complete();
  if (status == TOOL_OK) status = report(&eval);
  if (status == TOOL_OK) status = outfile_commit();
  histogram_free(&eval.histogram);
  curves_free(&eval.curves);
  free(eval.class_sums);
  free(eval.norms);
  json_decref(eval.command);
  run_release(&eval.run);
  sample_free(&eval.sample);
  device_close(&eval.device);
  return status;
}
