# SPDX-License-Identifier: Apache-2.0
# What is installed, in components: `runtime` (the shared library), `development` (the header, the static library,
# tare.pc, and what find_package(tare) reads) and `tool`, which installs itself in tool/CMakeLists.txt.
include(CMakePackageConfigHelpers)

install(FILES "${PROJECT_SOURCE_DIR}/include/tare.h" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT development)
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/NOTICE" DESTINATION "${CMAKE_INSTALL_DOCDIR}"
        COMPONENT runtime)

# Two files of targets: the static library needs the CUDA runtime that it was compiled for, the shared one brings it.
set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/tare")
install(TARGETS tare EXPORT tareTargets LIBRARY COMPONENT runtime NAMELINK_COMPONENT development)
install(TARGETS tare_static EXPORT tareStaticTargets COMPONENT development)
install(EXPORT tareTargets NAMESPACE tare:: DESTINATION "${package_folder}" COMPONENT development)
install(EXPORT tareStaticTargets NAMESPACE tare:: DESTINATION "${package_folder}" COMPONENT development)
configure_package_config_file(cmake/tareConfig.cmake.in tareConfig.cmake INSTALL_DESTINATION "${package_folder}")
write_basic_package_version_file(tareConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/tareConfig.cmake" "${PROJECT_BINARY_DIR}/tareConfigVersion.cmake"
        DESTINATION "${package_folder}" COMPONENT development)

set(pc_private_libraries "-lm -ldl -lpthread -Wl,-z,nodelete") # see library.cmake
if(TARE_BUILD_CUDA)
  cmake_path(GET CUDA_cudart_static_LIBRARY PARENT_PATH folder)
  string(APPEND pc_private_libraries " -L${folder} -lcudart_static -lrt")
endif()
# Relative to the .pc file, so that an installed tree can be moved; GNUInstallDirs may give absolute folders instead. A
# system's own tree stays where it is, and pkg-config leaves out its folders only if they are spelled plainly.
set(pc_folder "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig")
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
  set(pc_libdir "${CMAKE_INSTALL_FULL_LIBDIR}")
  set(pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
  set(pc_libdir "\${pcfiledir}/..")
  cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY "${pc_folder}" OUTPUT_VARIABLE way)
  set(pc_prefix "\${pcfiledir}/${way}")
  cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_INCLUDEDIR BASE_DIRECTORY "${pc_folder}" OUTPUT_VARIABLE way)
  set(pc_includedir "\${pcfiledir}/${way}")
endif()
configure_file(cmake/tare.pc.in tare.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/tare.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT development)

# Inside the Python package there are the header and the shared library, once, since a wheel keeps no links: under its
# soname, so that a C program can be linked with it.
if(SKBUILD)
  install(FILES $<TARGET_FILE:tare> DESTINATION lib RENAME $<TARGET_SONAME_FILE_NAME:tare> COMPONENT python)
  install(FILES "${PROJECT_SOURCE_DIR}/include/tare.h" DESTINATION include COMPONENT python)
endif()

if(NOT PROJECT_IS_TOP_LEVEL) # what follows belongs to the whole project
  return()
endif()

# cmake --build FOLDER --target uninstall removes what was last installed from there.
add_custom_target(uninstall VERBATIM
                  COMMAND "${CMAKE_COMMAND}" -P "${PROJECT_SOURCE_DIR}/cmake/uninstall.cmake" "${PROJECT_BINARY_DIR}")

# `cpack` in the build folder makes an archive that runs wherever it is unpacked.
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME "tare-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_COMPONENTS_ALL runtime development)
if(TARE_BUILD_TOOL)
  list(APPEND CPACK_COMPONENTS_ALL tool)
endif()
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
include(CPack)
