/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "real_data.h"

double *numbers_of(const npy_array *array) {
  double *values = malloc((array->count + 1) * sizeof *values);
  for (size_t i = 0; i < array->count; i++) values[i] = npy_number(array, i);
  return values;
}

/* TARE_TEST_EVERY=N takes every Nth row, for a slow device; small runs every eighth. */
int64_t rows_apart(void) {
  const char *every = getenv("TARE_TEST_EVERY");
  return every ? atoi(every) : test_size(1, 8);
}

/* Rows that are left out: the others go into a file of their own, which the tool reads. */
static void thin(npy_array *array, const char *name, char *path) {
  const char *folder = getenv("TMPDIR");
  const int64_t step = rows_apart();
  if (step <= 1) return;
  const size_t bytes = (size_t)(array->type[2] - '0') * (size_t)array->shape[1];
  const int64_t rows = (array->shape[0] + step - 1) / step;
  for (int64_t row = 0; row < rows; row++) {
    memmove((char *)array->data + (size_t)row * bytes, (char *)array->data + (size_t)(row * step) * bytes, bytes);
  }
  array->shape[0] = rows;
  array->count = (size_t)(rows * array->shape[1]);
  snprintf(path, PATH_BYTES, "%s/tare_thin_%d_%s", folder ? folder : "/tmp", (int)getpid(), name);
  npy_write(path, array->type, false, rows, array->axes == 2 ? array->shape[1] : 0, array->data, (size_t)rows * bytes);
}

dataset load(const char *state, const char *what) {
  dataset d = {.rows = 0};
  char name[64];
  snprintf(name, sizeof name, "%s_%s.npy", state, what);
  npy_real_path(d.logits, sizeof d.logits, name);
  npy_real_path(d.labels, sizeof d.labels, "labels.npy");
  npy_real_path(d.targets, sizeof d.targets, "box_targets.npy");
  npy_array logits = npy_read(d.logits), labels = npy_read(d.labels);
  thin(&logits, name, d.logits);
  thin(&labels, "labels.npy", d.labels);
  d.rows = logits.shape[0];
  d.classes = logits.shape[1];
  cr_assert_eq(labels.count, (size_t)d.rows);
  cr_assert_gt(d.rows, 1000);
  d.values = numbers_of(&logits);
  d.label_values = malloc((size_t)d.rows * sizeof *d.label_values);
  for (int64_t i = 0; i < d.rows; i++) d.label_values[i] = (int64_t)npy_number(&labels, (size_t)i);
  if (strcmp(what, "boxes") == 0) {
    npy_array targets = npy_read(d.targets);
    thin(&targets, "box_targets.npy", d.targets);
    d.target_values = numbers_of(&targets);
    npy_free(&targets);
  }
  npy_free(&logits);
  npy_free(&labels);
  return d;
}

void unload(dataset *d) {
  free(d->values);
  free(d->target_values);
  free(d->label_values);
}

/* The data as the oracle's problem. */
problem *problem_of(const dataset *d, int32_t kind) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, d->rows, d->classes);
  const size_t bytes = (size_t)(d->rows * d->classes) * sizeof(double);
  memcpy(p->logits, d->values, bytes);
  memcpy(p->labels, d->label_values, (size_t)d->rows * sizeof *p->labels);
  if (d->target_values != NULL) memcpy(p->targets, d->target_values, bytes);
  p->want = WANT_GRADIENT | WANT_ROW_LOSS;
  free(p->log_counts); /* the tool has none unless it is given counts */
  p->log_counts = NULL;
  free(p->margins);
  p->margins = NULL;
  return p;
}

/* ---- One evaluation -------------------------------------------------------------------------------------------- */

static int add_ghm_options(const tare_ghm_parameters *ghm, char *text, size_t size) {
  if (ghm->density == TARE_GHM_DENSITY_EXACT)
    return snprintf(text, size, " --density=exact --epsilon=%.17g", ghm->epsilon);
  return snprintf(text, size, " --bins=%d --momentum=%.17g --ghm-variant=%s", (int)ghm->bins, ghm->momentum,
                  ghm->variant == TARE_GHM_VARIANT_MMDET ? "mmdet" : "paper");
}

static int add_loss_options(const problem *p, char *text, size_t size) {
  if (is_ghm(p->loss.kind)) return add_ghm_options(&p->loss.ghm, text, size);
  const int32_t count = describe_loss(p->loss.kind).parameters;
  int used = 0;
  text[0] = '\0';
  for (int32_t i = 0; i < count; i++) {
    const tare_parameter_description parameter = describe_parameter(p->loss.kind, i);
    if (parameter.option[0] == '\0') continue;
    const double value = parameter_value(&p->loss, &parameter);
    if (parameter.type == TARE_PARAMETER_TYPE_CHOICE)
      used += snprintf(text + used, size - (size_t)used, " --%s=%s", parameter.option, parameter.choices[(int)value]);
    else
      used += snprintf(text + used, size - (size_t)used, " --%s=%.17g", parameter.option, value);
  }
  return used;
}

/* The offsets go through a file. */
int add_offsets(const problem *p, char *text, size_t size) {
  static char path[PATH_BYTES];
  if (p->offset == NULL || strstr(text, "--tau") != NULL) return 0;
  snprintf(path, sizeof path, "%s/tare_offsets_%d.npy", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
  npy_write(path, "<f8", false, p->classes, 0, p->offset, (size_t)p->classes * sizeof *p->offset);
  const size_t used = strlen(text);
  return snprintf(text + used, size - used, " --offsets %s", path);
}

/* The command line that says what the problem says. */
static void command_of(const problem *p, const dataset *d, const char *more, char *text, size_t size) {
  static const char *const normalizers[] = {"sum", "elements", "rows", "positives", "", "", "targets", "ones"};
  int used = snprintf(text, size, "eval --loss %s --logits %s --labels %s --json %s", tare_loss_name(p->loss.kind),
                      d->logits, d->labels, more);
  used += add_offsets(p, text, size);
  used += add_loss_options(p, text + used, size - (size_t)used);
  if (p->loss.kind == TARE_LOSS_GHM_R) {
    used += snprintf(text + used, size - (size_t)used, " --mu=%.17g --targets %s", p->loss.ghm.mu, d->targets);
  }
  if (p->normalizer == TARE_NORMALIZER_VALUE) {
    snprintf(text + used, size - (size_t)used, " --normalizer=%.17g", p->normalizer_value);
  } else if (!is_ghm(p->loss.kind)) {
    snprintf(text + used, size - (size_t)used, " --normalizer %s", normalizers[p->normalizer]);
  }
}

static void check_histogram(const problem *p, const answer_json *answer, const char *command) {
  const struct oracle_ghm_state *want = p->oracle_state;
  const int bins = p->loss.ghm.bins;
  char path[64];
  cr_assert_eq(answer_count(answer, "histogram.counts"), (size_t)bins, "%s", command);
  cr_assert_eq(answer_count(answer, "histogram.weights"), (size_t)bins, "%s", command);
  cr_assert_eq(answer_count(answer, "histogram.edges"), (size_t)bins + 1, "%s", command);
  int64_t counted = 0;
  for (int k = 0; k < bins; k++) {
    snprintf(path, sizeof path, "histogram.counts.%d", k);
    const double count = answer_number(answer, path);
    cr_assert_eq(count, (double)want->counts[k], "%s: bin %d: %g, want %lld", command, k, count,
                 (long long)want->counts[k]);
    counted += want->counts[k];
    snprintf(path, sizeof path, "histogram.edges.%d", k);
    CHECK_NEAR(path, answer_number(answer, path),
               oracle_ghm_edge(k, bins, p->loss.ghm.variant == TARE_GHM_VARIANT_MMDET), ((tolerance){0, 1e-7}));
    snprintf(path, sizeof path, "histogram.weights.%d", k); /* beta = N/GD */
    CHECK_NEAR(path, answer_number(answer, path), want->weights[k] * (double)want->total, ((tolerance){0, 1e-6}));
  }
  cr_assert_gt(counted, 0);
}

void check_answer(const problem *p, const outcome *want, const tool_answer *answer, const char *command) {
  cr_assert_eq(answer->status, 0, "%s: exit %d: %s", command, answer->status, answer->err);
  cr_assert_str_eq(answer->err, "", "%s: %s", command, answer->err);
  answer_json *json = answer_read(answer->out);
  double l1 = 0, squares = 0;
  for (int64_t i = 0; i < want->elements; i++) {
    l1 += fabs(want->gradient[i]);
    squares += want->gradient[i] * want->gradient[i];
  }
  cr_assert(want->loss != 0 && l1 != 0, "%s: the oracle says 0", command);
  CHECK_NEAR(command, answer_number(json, "loss"), want->loss, close_enough);
  CHECK_NEAR(command, answer_number(json, "grad_l1"), l1, close_enough);
  CHECK_NEAR(command, answer_number(json, "grad_l2"), sqrt(squares), close_enough);
  cr_assert_eq(answer_number(json, "rows"), (double)p->rows);
  cr_assert_eq(answer_number(json, "classes"), (double)p->classes);
  cr_assert_eq(answer_number(json, "positives"), (double)want->counts.positives);
  cr_assert_eq(answer_number(json, "background"), (double)want->counts.background);
  cr_assert_eq(answer_number(json, "ignored"), (double)want->counts.ignored);
  cr_assert_str_eq(answer_text(json, "dtype"), "f32");
  cr_assert_gt(answer_number(json, "milliseconds"), 0);
  cr_assert_gt(answer_number(json, "gigabytes_per_second"), 0);
  cr_assert_neq(answer_text(json, "device")[0], '\0');
  if (p->oracle_state != NULL) check_histogram(p, json, command);
  answer_free(json);
}

/* Runs the problem by the tool and by the oracle. `more` are options that the problem does not tell. */
void check_eval(problem *p, const dataset *d, const char *more) {
  const tool_folder folder = tool_folder_make();
  char command[4 * PATH_BYTES];
  command_of(p, d, more, command, sizeof command);
  tool_answer answer = tool_run(&folder, 0, "%s", command);
  if (is_ghm(p->loss.kind) && p->loss.ghm.density == TARE_GHM_DENSITY_UNIT_REGION) problem_add_ghm_state(p);
  outcome *want = problem_expect(p);
  check_answer(p, want, &answer, command);
  outcome_free(want);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
  problem_free(p);
}
