/* SPDX-License-Identifier: Apache-2.0 */
/* Twins of dlopen and its kind for .cu files: the libraries that they find are the emulator's own stand-ins
 * (cublas.cpp), so that the code that looks for a library is tried as well as the code that uses it. */
#ifndef TARE_EMULATOR_BLAS_H
#define TARE_EMULATOR_BLAS_H

#include <dlfcn.h>

namespace emulator {

void *open_library(const char *name, int flags);
void *find_symbol(void *library, const char *name);
char *library_error();

}  // namespace emulator

#define dlopen emulator::open_library
#define dlsym emulator::find_symbol
#define dlerror emulator::library_error

#endif
