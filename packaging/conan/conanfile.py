# SPDX-License-Identifier: Apache-2.0
"""The library as a package of Conan 2, from this source: `conan create packaging/conan`. It has neither kernels for
GPUs nor the tool."""

import os
import re
from typing import ClassVar

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rm, rmdir


class Tare(ConanFile):
    name = "tare"
    license = "Apache-2.0"
    description = "Loss kernels for class-imbalanced dense detection"
    topics = ("object-detection", "focal-loss", "class-imbalance")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options: ClassVar = {"shared": [True, False]}
    default_options: ClassVar = {"shared": True}

    def set_version(self):
        header = load(self, os.path.join(self._root(), "include", "tare.h"))
        numbers = re.findall(r"^#define TARE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)$", header, re.MULTILINE)
        self.version = ".".join(numbers)

    def _root(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def export_sources(self):
        files = ["CMakeLists.txt", "LICENSE", "NOTICE", "tool/CMakeLists.txt", "tests/CMakeLists.txt"]
        for pattern in files + [f"{folder}/*" for folder in ("cmake", "core", "cpu", "cuda", "include", "losses")]:
            copy(self, pattern, self._root(), self.export_sources_folder)

    def validate(self):
        if self.settings.os != "Linux":
            raise ConanInvalidConfiguration("Tare is for Linux")

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("CUDA", "TOOL", "TESTS", "EXAMPLES"):
            toolchain.cache_variables[f"TARE_{part}"] = "OFF"
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        copy(self, "NOTICE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        library = os.path.join(self.package_folder, "lib")
        rmdir(self, os.path.join(library, "cmake"))
        rmdir(self, os.path.join(library, "pkgconfig"))
        rmdir(self, os.path.join(self.package_folder, "share"))
        rm(self, "libtare.a" if self.options.shared else "libtare.so*", library)

    def package_info(self):
        self.cpp_info.libs = ["tare"]
        self.cpp_info.set_property("cmake_file_name", "tare")
        self.cpp_info.set_property("cmake_target_name", "tare::tare")
        self.cpp_info.set_property("pkg_config_name", "tare")
        if not self.options.shared:
            self.cpp_info.system_libs = ["m", "dl", "pthread"]
            self.cpp_info.sharedlinkflags = ["-Wl,-z,nodelete"]  # its threads would outlive a plugin
