# SPDX-License-Identifier: Apache-2.0
# A toolchain file: builds for 64-bit ARM with the cross compiler of Debian's gcc-aarch64-linux-gnu. Libraries come from
# its own folder and from the one that -DTARE_TARGET_ROOT=FOLDER names: packages of arm64, unpacked, as
# `./dev test --aarch64` leaves them in ~/.cache/tare/aarch64. Nothing of this machine's own libraries is taken. With
# qemu-user what was built can be tried here.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(TARE_TARGET_ROOT "" CACHE PATH "A folder of unpacked packages for the target machine")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TARE_TARGET_ROOT)
set(CMAKE_FIND_ROOT_PATH ${TARE_TARGET_ROOT} /usr/aarch64-linux-gnu)
if(TARE_TARGET_ROOT) # headers of packages that more than one architecture installs
  set(CMAKE_C_STANDARD_INCLUDE_DIRECTORIES "${TARE_TARGET_ROOT}/usr/include/aarch64-linux-gnu")
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
find_program(QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
mark_as_advanced(QEMU_AARCH64)
if(QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${QEMU_AARCH64};-L;/usr/aarch64-linux-gnu")
  if(TARE_TARGET_ROOT) # where programs look for what they load by name
    set(folder "${TARE_TARGET_ROOT}/usr/lib/aarch64-linux-gnu")
    list(APPEND CMAKE_CROSSCOMPILING_EMULATOR -E "LD_LIBRARY_PATH=${folder}:${folder}/openblas-pthread")
  endif()
endif()
