/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The .npy format: 6 bytes of magic, a version, the length of a header, the header (a Python dict literal with exactly
 * the keys descr, fortran_order and shape), the bytes of the array. Nothing is allocated before the header's claims
 * have been checked against the size of the file. So no input can request more memory than its own size.
 */
#define _GNU_SOURCE
#include "npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "infile.h"
#include "problem.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the array bytes of a .npy file are used as they are: this needs a little-endian machine"
#endif

enum { MAX_HEADER = 65536 }; /* NumPy writes 128 bytes for any array this tool can use */

static const struct type {
  enum npy_type type;
  int size;
  const char *descr, *name;
} types_known[] = {
    {NPY_F2, 2, "<f2", "float16"}, {NPY_F4, 4, "<f4", "float32"},
    {NPY_F8, 8, "<f8", "float64"}, {NPY_U2, 2, "<u2", "uint16 (bf16 bits)"},
    {NPY_I4, 4, "<i4", "int32"},   {NPY_I8, 8, "<i8", "int64"},
    {NPY_U1, 1, "|u1", "uint8"},   {NPY_U1, 1, "|b1", "bool"},
};
enum { TYPES = sizeof types_known / sizeof types_known[0] };

static const struct type *type_of(enum npy_type type) {
  for (int index = 0; index < TYPES; index++) {
    if (types_known[index].type == type) return &types_known[index];
  }
  return NULL;
}

size_t npy_size(enum npy_type type) { return (size_t)type_of(type)->size; }

/* What is being read, for the error line. */
struct reader {
  const char *role, *path;
  unsigned types;
  FILE *file;
  int64_t file_size;
};

static int refuse(const struct reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(const struct reader *reader, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return complain("%s %s: %s", reader->role, reader->path, text);
}

/* -- the header: a small part of Python's syntax ------------------------------------------------------------------ */

struct cursor {
  const char *at, *end;
};

static void skip_spaces(struct cursor *cursor) {
  while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t' || *cursor->at == '\n')) cursor->at++;
}

static bool take(struct cursor *cursor, char wanted) {
  skip_spaces(cursor);
  if (cursor->at == cursor->end || *cursor->at != wanted) return false;
  cursor->at++;
  return true;
}

static bool take_word(struct cursor *cursor, const char *word) {
  skip_spaces(cursor);
  size_t length = strlen(word);
  if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0) return false;
  cursor->at += length;
  return true;
}

/* A quoted string without escapes, as NumPy writes its keys and simple types. */
static bool take_string(struct cursor *cursor, char *text, size_t size) {
  skip_spaces(cursor);
  if (cursor->at == cursor->end || (*cursor->at != '\'' && *cursor->at != '"')) return false;
  char quote = *cursor->at++;
  size_t length = 0;
  for (; cursor->at < cursor->end && *cursor->at != quote; cursor->at++) {
    if (!*cursor->at || *cursor->at == '\\' || length + 1 >= size) return false; /* a NUL would end the text */
    text[length++] = *cursor->at;
  }
  text[length] = 0;
  return take(cursor, quote);
}

static bool take_length(struct cursor *cursor, int64_t *length) {
  skip_spaces(cursor);
  const char *start = cursor->at;
  *length = 0;
  for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++) {
    if (__builtin_mul_overflow(*length, 10, length)) return false;
    if (__builtin_add_overflow(*length, *cursor->at - '0', length)) return false;
  }
  return cursor->at > start;
}

static bool take_shape(struct cursor *cursor, struct npy *array) {
  if (!take(cursor, '(')) return false;
  bool comma = true;
  while (!take(cursor, ')')) {
    if (!comma || array->dimensions == NPY_MAX_DIMENSIONS) return false;
    if (!take_length(cursor, &array->shape[array->dimensions++])) return false;
    comma = take(cursor, ',');
  }
  return array->dimensions != 1 || comma; /* (3) is a number in Python, (3,) a shape */
}

struct header {
  char descr[64];
  bool has_descr, structured, has_order, fortran, has_shape;
};

/* One "key: value". The descr of a structured type is a list. It is not read, because it is refused anyway. */
static bool take_entry(struct cursor *cursor, struct header *header, struct npy *array) {
  char key[32];
  if (!take_string(cursor, key, sizeof key) || !take(cursor, ':')) return false;
  if (strcmp(key, "descr") == 0 && !header->has_descr) {
    header->has_descr = true;
    header->structured = take(cursor, '[');
    return header->structured || take_string(cursor, header->descr, sizeof header->descr);
  }
  if (strcmp(key, "fortran_order") == 0 && !header->has_order) {
    header->has_order = true;
    header->fortran = take_word(cursor, "True");
    return header->fortran || take_word(cursor, "False");
  }
  if (strcmp(key, "shape") == 0 && !header->has_shape) {
    header->has_shape = true;
    return take_shape(cursor, array);
  }
  return false;
}

static bool take_header(struct cursor *cursor, struct header *header, struct npy *array) {
  if (!take(cursor, '{')) return false;
  bool comma = true;
  while (!take(cursor, '}')) {
    if (!comma || !take_entry(cursor, header, array)) return false;
    if (header->structured) return true;
    comma = take(cursor, ',');
  }
  skip_spaces(cursor);
  return cursor->at == cursor->end && header->has_descr && header->has_order && header->has_shape;
}

/* -- what is wrong with a well-formed header ---------------------------------------------------------------------- */

static void name_types(unsigned types, char *text, size_t size) {
  text[0] = 0;
  for (int index = 0; index < TYPES; index++) {
    if (!(types & (unsigned)types_known[index].type)) continue;
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s%s", used ? " or " : "", types_known[index].name);
  }
}

static const char *first_descr(unsigned types) {
  unsigned wanted = types & NPY_F4 ? (unsigned)NPY_F4 : types & NPY_I4 ? (unsigned)NPY_I4 : types & (0u - types);
  return type_of((enum npy_type)wanted)->descr;
}

static int check_type(const struct reader *reader, const struct header *header, struct npy *array) {
  char expected[128];
  name_types(reader->types, expected, sizeof expected);
  const char *remedy = first_descr(reader->types);
  if (header->structured) {
    return refuse(reader, "found a structured type, expected %s; save one field: np.save(path, x['field'])", expected);
  }
  const char *descr = header->descr;
  if (strcmp(descr, "|O") == 0 || strcmp(descr, "O") == 0) {
    return refuse(reader, "found Python objects, expected %s; convert with np.array(x.tolist(), dtype='%s')", expected,
                  remedy);
  }
  for (int index = 0; index < TYPES; index++) {
    const struct type *type = &types_known[index];
    if (descr[0] == '>' && strcmp(descr + 1, type->descr + 1) == 0) {
      return refuse(reader, "found big-endian '%s', expected little-endian %s; convert with x.astype('%s')", descr,
                    expected, reader->types & (unsigned)type->type ? type->descr : remedy);
    }
    if (strcmp(descr, type->descr) == 0 && reader->types & (unsigned)type->type) {
      array->type = type->type;
      return TOOL_OK;
    }
  }
  if (strcmp(descr, "<u2") == 0) {
    return refuse(reader, "found uint16, expected %s; if these are the bits of bf16 numbers, say --dtype bf16",
                  expected);
  }
  return refuse(reader, "found type '%s', expected %s; convert with x.astype('%s')", descr, expected, remedy);
}

void npy_print_shape(const struct npy *array, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "(");
  for (int axis = 0; axis < array->dimensions && used < size; axis++) {
    used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, axis ? ", " : "", array->shape[axis]);
  }
  if (used < size) snprintf(text + used, size - used, array->dimensions == 1 ? ",)" : ")");
}

static int check_shape(const struct reader *reader, const struct header *header, int dimensions, struct npy *array) {
  char shape[256];
  npy_print_shape(array, shape, sizeof shape);
  array->count = 1;
  bool empty = false;
  for (int axis = 0; axis < array->dimensions; axis++) empty |= array->shape[axis] == 0;
  for (int axis = 0; axis < array->dimensions; axis++) {
    if (!empty && __builtin_mul_overflow(array->count, array->shape[axis], &array->count)) {
      return refuse(reader, "the shape %s has more than 2^63 elements: the file is damaged; save it again", shape);
    }
  }
  if (empty) array->count = 0;
  if (dimensions != NPY_ANY_DIMENSIONS && array->dimensions != dimensions) {
    return refuse(reader, "found shape %s, expected %s; %s", shape,
                  dimensions == 1 ? "one axis (rows,)" : "two axes (rows, columns)",
                  dimensions == 1 ? "flatten with x.reshape(-1)"
                                  : "move the columns to the last axis, then x.reshape(-1, columns)");
  }
  if (header->fortran) {
    return refuse(reader, "found Fortran order (columns first), expected C order; save np.ascontiguousarray(x)");
  }
  return TOOL_OK;
}

/* -- the file ----------------------------------------------------------------------------------------------------- */

static int read_exactly(const struct reader *reader, void *bytes, size_t size, const char *part) {
  if (fread(bytes, 1, size, reader->file) == size) return TOOL_OK;
  if (ferror(reader->file)) return refuse(reader, "cannot read: %s", strerror(errno));
  return refuse(reader,
                "ends within its %s (%" PRId64 " bytes in all): not a whole .npy file; save it again with np.save",
                part, reader->file_size);
}

static int check_magic(const struct reader *reader, const unsigned char *bytes) {
  if (memcmp(bytes, "\x93NUMPY", 6) == 0) return TOOL_OK;
  if (memcmp(bytes, "PK\3\4", 4) == 0) {
    return refuse(reader, "found an .npz (zip) archive, expected .npy; save one array with np.save");
  }
  return refuse(reader,
                "found bytes %02x %02x %02x %02x at its start, expected 93 4e 55 4d (.npy); save it with np.save",
                bytes[0], bytes[1], bytes[2], bytes[3]);
}

static int read_header(const struct reader *reader, struct header *header, struct npy *array) {
  unsigned char start[12];
  int status = read_exactly(reader, start, 6, "first 6 bytes");
  if (status == TOOL_OK) status = check_magic(reader, start);
  if (status == TOOL_OK) status = read_exactly(reader, start + 6, 4, "header");
  if (status != TOOL_OK) return status;
  unsigned version = start[6];
  if (version < 1 || version > 3 || start[7] != 0) {
    return refuse(reader, "found .npy format version %u.%u, expected 1.0, 2.0 or 3.0; save it again with np.save",
                  version, start[7]);
  }
  if (version > 1) status = read_exactly(reader, start + 10, 2, "header");
  if (status != TOOL_OK) return status;
  uint32_t length = start[8] | (uint32_t)start[9] << 8;
  if (version > 1) length |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
  if (length > MAX_HEADER) {
    return refuse(reader,
                  "its header claims %" PRIu32 " bytes, more than the %d allowed; save a plain array with np.save",
                  length, MAX_HEADER);
  }
  char *text = malloc((size_t)length + 1);
  if (!text) return refuse(reader, "out of memory");
  status = read_exactly(reader, text, length, "header");
  struct cursor cursor = {text, text + length};
  if (status == TOOL_OK && !take_header(&cursor, header, array)) {
    status = refuse(reader,
                    "its header is damaged at byte %td, expected descr, fortran_order and shape; save it again "
                    "with np.save",
                    cursor.at - text);
  }
  free(text);
  return status;
}

static int read_data(const struct reader *reader, struct npy *array) {
  const struct type *type = type_of(array->type);
  char shape[256];
  npy_print_shape(array, shape, sizeof shape);
  int64_t bytes, found = reader->file_size - (int64_t)ftello(reader->file);
  bool beyond = __builtin_mul_overflow(array->count, type->size, &bytes);
  if (beyond || bytes > PTRDIFF_MAX) {
    return refuse(reader, "its shape %s of %s exceeds any memory, so its header is damaged; save it again", shape,
                  type->descr);
  }
  if (found != bytes) {
    return refuse(reader, "found %" PRId64 " bytes of data, expected %" PRId64 " for shape %s of %s; %s: save it again",
                  found, bytes, shape, type->descr,
                  found < bytes ? "it is truncated, or its header is damaged" : "bytes were appended to it");
  }
  array->data = malloc(bytes ? (size_t)bytes : 1);
  if (!array->data) return refuse(reader, "no memory for its %" PRId64 " bytes; use fewer rows at a time", bytes);
  return read_exactly(reader, array->data, (size_t)bytes, "data");
}

int npy_read_file(const char *role, const char *path, FILE *file, int64_t size, const struct npy_wanted *wanted,
                  struct npy *array) {
  *array = (struct npy){0};
  struct reader reader = {.role = role, .path = path, .types = wanted->types, .file = file, .file_size = size};
  struct header header = {0};
  int status = read_header(&reader, &header, array);
  if (status == TOOL_OK) status = check_type(&reader, &header, array);
  if (status == TOOL_OK) status = check_shape(&reader, &header, wanted->dimensions, array);
  if (status == TOOL_OK) status = read_data(&reader, array);
  if (status != TOOL_OK) {
    free(array->data);
    array->data = NULL;
  }
  return status;
}

int npy_read(const char *role, const char *path, unsigned types, int dimensions, struct npy *array) {
  *array = (struct npy){0};
  const struct npy_wanted wanted = {.types = types, .dimensions = dimensions};
  int64_t size;
  FILE *file = infile_open(role, path, "a .npy file", &size);
  if (!file) return TOOL_FAILED;
  int status = npy_read_file(role, path, file, size, &wanted, array);
  fclose(file);
  return status;
}

int npy_write(FILE *file, enum npy_type type, int dimensions, const int64_t *shape, const void *data) {
  struct npy array = {.dimensions = dimensions};
  size_t bytes = (size_t)type_of(type)->size;
  for (int axis = 0; axis < dimensions; axis++) {
    array.shape[axis] = shape[axis];
    bytes *= (size_t)shape[axis];
  }
  char tuple[256], header[512];
  npy_print_shape(&array, tuple, sizeof tuple);
  int length = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                        type_of(type)->descr, tuple);
  while ((10 + length + 1) % 64 != 0)
    header[length++] = ' '; /* so that the data can be mapped aligned, as NumPy does */
  header[length++] = '\n';
  unsigned char start[10] = {
      0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(length & 255), (unsigned char)(length >> 8)};
  if (fwrite(start, 1, sizeof start, file) != sizeof start) return -1;
  if (fwrite(header, 1, (size_t)length, file) != (size_t)length) return -1;
  if (bytes && fwrite(data, 1, bytes, file) != bytes) return -1;
  return 0;
}
