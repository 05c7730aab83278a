/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps what a kernel is given, if TARE_EMULATOR_RECORD names a folder: a file for each launch, launch-N. It has lines
 * of text, an empty line, the bytes of the arguments one after another, and those of the device memory before the
 * launch:
 *   program PATH OFFSET    the kernel is at this offset of the program
 *   grid BLOCKS
 *   argument BYTES         each
 *   memory ADDRESS BYTES   each
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "device.h"
#include "record.h"
#include "thread.h"

namespace emulator {

void record_launch(const launch &l, const std::vector<std::vector<char>> &arguments) {
  static const char *const folder = getenv("TARE_EMULATOR_RECORD");
  static int number = 0;
  if (!folder) return;
  char path[1000];
  snprintf(path, sizeof path, "%s/launch-%d", folder, number++);
  FILE *file = fopen(path, "wb");
  Dl_info in = {};
  if (!file || !dladdr(const_cast<void *>(l.kernel), &in)) fail("cannot record into %s", path);
  fprintf(file, "program %s %zx\n", in.dli_fname,
          size_t(static_cast<const char *>(l.kernel) - static_cast<const char *>(in.dli_fbase)));
  fprintf(file, "grid %u\n", l.grid.x);
  for (const auto &argument : arguments) fprintf(file, "argument %zu\n", argument.size());
  for_each_allocation(
      [&](const char *data, size_t size) { fprintf(file, "memory %p %zu\n", static_cast<const void *>(data), size); });
  fprintf(file, "\n");
  for (const auto &argument : arguments) fwrite(argument.data(), 1, argument.size(), file);
  for_each_allocation([&](const char *data, size_t size) { fwrite(data, 1, size, file); });
  if (fclose(file) != 0) fail("cannot write %s", path);
}

}  // namespace emulator
