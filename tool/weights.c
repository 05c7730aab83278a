/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare weights`: class-balanced weights from counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "provenance.h"
#include "report.h"
#include "tare.h"
#include "tool/base/counts.h"
#include "tool/base/npy.h"
#include "tool/base/outfile.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"
#include "verbs.h"

enum { COUNTS = 256, BETA, OUT, JSON };

static const struct argp_option described[] = {
    {"class-counts", COUNTS, "F", 0,
     "Samples of each class: .npy of i4, i8, f4 or f8, or .csv with the count in the last column", 0},
    {"beta", BETA, "B", 0, "Beta in [0,1). 0 gives equal weights; near 1, weights are proportional to 1/count", 0},
    {"out", OUT, "W.npy", 0, "Write the weights, as f4 [classes]", 0},
    {"json", JSON, 0, 0, "Print one JSON object instead of a table", 0},
    {0, 0, 0, 0, 0, 0}};

struct options {
  const char *counts, *out;
  double beta;
  bool has_beta, json;
  json_t *command;
};

static error_t read_option(int key, char *text, struct argp_state *state) {
  struct options *options = state->input;
  switch (key) {
    case COUNTS:
      options->counts = text;
      return 0;
    case BETA:
      options->has_beta = true;
      return parse_beta(text, &options->beta) ? EINVAL : 0;
    case OUT:
      return parse_output("--out", text, ".npy", &options->out) ? EINVAL : 0;
    case JSON:
      options->json = true;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

struct balance {
  struct counts counts;
  float *weights;
  double *effective;
};

static int compute(const struct options *options, struct balance *balance) {
  int status = counts_read(options->counts, &balance->counts);
  if (status != TOOL_OK) return status;
  int64_t classes = balance->counts.classes;
  size_t size = classes ? (size_t)classes : 1;
  balance->weights = calloc(size, sizeof(float));
  balance->effective = calloc(size, sizeof(double));
  if (!balance->weights || !balance->effective) return complain("out of memory");
  status = counts_weigh(options->counts, &balance->counts, options->beta, balance->weights);
  for (int64_t class = 0; status == TOOL_OK && class < classes; class ++) {
    const double count = balance->counts.real[class];
    if (tare_effective_number(count, options->beta, &balance->effective[class]) != TARE_STATUS_OK)
      status = complain("%s", tare_error_text(NULL));
  }
  return status;
}

static int write_weights(const char *path, const struct balance *balance) {
  if (!path) return TOOL_OK;
  FILE *file = outfile_open("--out", path);
  if (!file) return TOOL_FAILED;
  if (npy_write(file, NPY_F4, 1, &balance->counts.classes, balance->weights) != 0) return outfile_failed("--out", path);
  return TOOL_OK;
}

static void print_table(const struct options *options, const struct balance *balance) {
  struct table table = {.alignment = "rrrr"};
  table_cell(&table, "class");
  table_cell(&table, "count");
  table_cell(&table, "effective number");
  table_cell(&table, "weight");
  int64_t present = 0;
  for (int64_t class = 0; class < balance->counts.classes; class ++) {
    present += balance->counts.real[class] > 0;
    table_cell(&table, "%" PRId64, class);
    if (balance->counts.whole)
      table_cell(&table, "%s", grouped(balance->counts.whole[class]).of);
    else
      table_cell(&table, "%.9g", balance->counts.real[class]);
    table_cell(&table, "%.6g", balance->effective[class]);
    table_cell(&table, "%.6g", balance->weights[class]);
  }
  table_print(&table, true);
  printf("\n  beta %.17g; the weights of the %s classes with samples add up to their number\n", options->beta,
         grouped(present).of);
}

static json_t *as_json(const struct options *options, const struct balance *balance) {
  json_t *counts = json_array(), *effective = json_array(), *weights = json_array();
  for (int64_t class = 0; class < balance->counts.classes; class ++) {
    json_append(counts, balance->counts.whole ? json_integer(balance->counts.whole[class])
                                              : json_number(balance->counts.real[class]));
    json_append(effective, json_number(balance->effective[class]));
    json_append(weights, json_number((double)balance->weights[class]));
  }
  json_t *object = json_pack("{s:O, s:f, s:I, s:o, s:o, s:o}", "command", options->command, "beta", options->beta,
                             "classes", (json_int_t)balance->counts.classes, "counts", counts, "effective_numbers",
                             effective, "weights", weights);
  provenance_add(object);
  return object;
}

static int weigh(struct options *options, int argc, char **argv) {
  static const struct argp argp = {
      described,
      read_option,
      "--class-counts F --beta B",
      "Computes class-balanced weights. A weight is inversely proportional to the class's effective "
      "number of samples, (1-beta^n)/(1-beta) (Cui et al., arXiv 1901.05555).\v"
      "A class without samples gets weight 0.\n\n" COUNTS_HELP,
      NULL,
      NULL,
      NULL};
  int status = parse_arguments(&argp, NULL, argc, argv, options);
  if (status == TOOL_OK && !options->counts) status = misuse("--class-counts is missing");
  if (status == TOOL_OK && !options->has_beta) status = misuse("--beta is missing");
  if (status != TOOL_OK) return status;
  struct balance balance = {0};
  status = compute(options, &balance);
  if (status == TOOL_OK) status = write_weights(options->out, &balance);
  if (status == TOOL_OK) status = outfile_complete();
  if (status == TOOL_OK && options->json)
    status = json_print(as_json(options, &balance));
  else if (status == TOOL_OK)
    print_table(options, &balance);
  if (status == TOOL_OK) status = finish_output();
  if (status == TOOL_OK) status = outfile_commit();
  counts_free(&balance.counts);
  free(balance.weights);
  free(balance.effective);
  return status;
}

int verb_weights(int argc, char **argv) {
  struct options options = {.command = provenance_command(argc, argv)};
  const int status = weigh(&options, argc, argv);
  json_decref(options.command);
  return status;
}
