# SPDX-License-Identifier: Apache-2.0
"""The ctypes mirror against the C compiler and header, and how the library is found."""

import ast
import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tare
from tare import _c, _losses, _structs

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
HEADER = Path(ROOT, "include", "tare.h").read_text()
STRUCTS = {
    "tare_context_options": _c.ContextOptions,
    "tare_context_description": _c.ContextDescription,
    "tare_loss_description": _c.LossDescription,
    "tare_parameter_description": _c.ParameterDescription,
    "tare_strides": _structs.Strides,
    "tare_level": _structs.Level,
    "tare_batch": _c.Batch,
    "tare_counts": _structs.Counts,
    "tare_output": _c.Output,
    "tare_linear": _c.Linear,
    "tare_class_balance": _structs.ClassBalance,
    "tare_mask_spec": _structs.MaskSpec,
    "tare_masks": _structs.Masks,
    "tare_mask_sums": _structs.MaskSums,
    "tare_mask_output": _structs.MaskOutput,
}


def fields(mirror):
    """Names and offsets."""
    for name, _ in mirror._fields_:
        yield name, getattr(mirror, name).offset


def test_layout_is_the_compilers(tmp_path):
    lines = []
    for name, mirror in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        lines += [f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));' for field, _ in fields(mirror)]
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text("#include <stdio.h>\n#include <tare.h>\nint main(void) {\n" + "\n".join(lines) + "\n}\n")
    subprocess.run([os.environ.get("CC", "cc"), f"-I{ROOT}/include", source, "-o", program], check=True)
    theirs = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
    ours = []
    for name, mirror in STRUCTS.items():
        ours.append(f"{name} {ctypes.sizeof(mirror)}")
        ours += [f"{name}.{field} {offset}" for field, offset in fields(mirror)]
    assert ours == [line for line in theirs if line]


def test_mirror_has_every_field():
    for name, mirror in STRUCTS.items():
        body = re.search(rf"typedef struct {name} \{{(.*?)\n\}} {name};", HEADER, re.S).group(1)
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        declared = re.findall(r"(\w+)(?:\[\d+\])?\s*[,;]", body)
        assert sorted(set(declared)) == sorted({field for field, _ in fields(mirror)}), name


def test_enumerators_are_the_headers():
    values = {name: int(value) for name, value in re.findall(r"\bTARE_(\w+) =\s*(-?\d+)", HEADER)}
    for status, name in _c.STATUSES.items():
        assert values.pop(name.removeprefix("TARE_")) == status
    for name, value in _c.NORMALIZERS.items():
        assert values.pop("NORMALIZER_" + name.upper()) == value
    for name in ("F32", "F16", "BF16", "F64"):
        assert values.pop("DTYPE_" + name) == getattr(_c, name)
    assert (values.pop("LABEL_DTYPE_I32"), values.pop("LABEL_DTYPE_I64")) == (_c.I32, _c.I64)
    assert values.pop("NORMALIZER_VALUE") == _c.VALUE
    assert (values.pop("DEVICE_CPU"), values.pop("DEVICE_CUDA")) == (_c.CPU, _c.CUDA)
    choices = {one.name: one.choices for loss in _losses.DESCRIPTIONS.values() for one in loss.parameters.values()}
    for parameter in ("density", "variant"):
        for value, word in enumerate(choices[parameter]):
            assert values.pop(f"GHM_{parameter}_{word}".upper().replace("-", "_")) == value
    for value, word in enumerate(choices["modulator"]):
        assert values.pop(f"MODULATOR_{word}".upper()) == value
    assert (values.pop("SELECTION_ALL"), values.pop("SELECTION_HARD_NEGATIVES")) == (0, _c.HARD_NEGATIVES)
    assert values.pop("DEVICE_AUTO") == 0
    kinds = {name.removeprefix("LOSS_"): value for name, value in values.items() if name.startswith("LOSS_")}
    kinds = {name: value for name, value in kinds.items() if not name.startswith("FAMILY_")}
    assert {name.lower().replace("_", "-"): value for name, value in kinds.items()} == tare.losses()
    assert f"#define TARE_MAX_LEVELS {_c.MAX_LEVELS}\n" in HEADER


def test_every_prototype_has_the_headers_arguments():
    text = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)
    for name, (_, arguments) in _c._PROTOTYPES.items():
        declared = re.search(name + r"\((.*?)\);", text, re.S).group(1)
        assert len(arguments) == (0 if declared == "void" else declared.count(",") + 1), name


def test_a_spec_is_as_long_as_the_header_says(tmp_path):
    source, program = tmp_path / "size.c", tmp_path / "size"
    source.write_text(
        '#include <stdio.h>\n#include <tare.h>\nint main(void) { printf("%zu", sizeof(tare_loss_spec)); }\n'
    )
    subprocess.run([os.environ.get("CC", "cc"), f"-I{ROOT}/include", source, "-o", program], check=True)
    size = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert int(size) == ctypes.sizeof(_c.Loss)


def test_every_parameter_is_set_where_the_library_reads_it():
    """In the words of the field that it is, a value out of range is refused."""
    for name, description in _losses.DESCRIPTIONS.items():
        for key, parameter in description.parameters.items():
            if parameter.is_pointer or parameter.choices:
                continue
            beyond = parameter.high * 2 if parameter.type == 0 else 5000
            loss = _losses.fill_loss(name, {key: beyond}, {"state": 4096} if description.has_state else {})
            if parameter.type == 0:
                place = ctypes.c_double.from_buffer(loss, parameter.offset)
            else:
                place = ctypes.c_int32.from_buffer(loss, parameter.offset)
            assert place.value == beyond, (name, key)


def test_no_module_decides_by_the_name_of_a_loss():
    """Which losses there are, and what each has, the library says. Only tare.torch and _types.py name theirs."""
    words = {word for name in tare.losses() for word in (name, name.split("-")[0])}
    for file in Path(tare.__file__).parent.glob("*.py"):
        if file.name != "_types.py":
            constants = [node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
            assert not words.intersection(one for one in constants if isinstance(one, str)), file


def test_version_is_the_headers():
    numbers = re.findall(r"#define TARE_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", HEADER)
    assert tare.__version__ == ".".join(numbers)
    assert tare.__version__ in tare.build_description()


def test_errors_carry_status_name_and_text():
    with pytest.raises(tare.ArgumentError, match="bins is 0.*TARE_STATUS_INVALID_ARGUMENT") as caught:
        tare.evaluate("ghm-c", np.float32([[0.5]]), np.array([0]), bins=0)
    assert (caught.value.status, caught.value.name) == (1, "TARE_STATUS_INVALID_ARGUMENT")
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, tare.Error)


def run(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_missing_library_says_what_to_do():
    found = run("import tare", TARE_LIBRARY="/nowhere/libtare.so")
    assert found.returncode != 0
    for text in ("ImportError", "pip install .", "TARE_LIBRARY", "/nowhere/libtare.so"):
        assert text in found.stderr


# What `pip install -e` does: the sources stay where they are, and the library is in the package's other folder.
EDITABLE = """
import importlib.util, sys
sources, built = sys.argv[1:]
places = {"submodule_search_locations": [built, sources]}
spec = importlib.util.spec_from_file_location("tare", sources + "/__init__.py", **places)
tare = sys.modules["tare"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tare)
print(tare._c.library._name)
"""


def test_the_library_may_lie_in_another_folder_of_the_package(tmp_path):
    folder = tmp_path / "site [1]" / "tare"
    (folder / "lib").mkdir(parents=True)
    library = folder / "lib" / "libtare.so"
    library.symlink_to(os.environ["TARE_LIBRARY"])
    environment = {name: value for name, value in os.environ.items() if name != "TARE_LIBRARY"}
    command = [sys.executable, "-c", EDITABLE, os.path.dirname(tare.__file__), str(folder)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == str(library), found.stderr


def test_gpu_that_is_not_there_says_so():
    code = "from tare import _c\ntry: _c.create_context(_c.CUDA, 99)\nexcept _c.Error as e: print(e.name, e.text)"
    found = run(code)
    name = found.stdout.split(" ")[0]
    assert name in (
        "TARE_STATUS_NOT_BUILT",
        "TARE_STATUS_NO_DRIVER",
        "TARE_STATUS_DRIVER_TOO_OLD",
        "TARE_STATUS_NO_DEVICE",
    ), found


def test_contexts_are_kept_by_stream_and_thread():
    import threading

    assert _c.context() is _c.context()
    assert _c.context() is not _c.context(threads=1)
    others = []
    thread = threading.Thread(target=lambda: others.append(_c.context()))
    thread.start()
    thread.join()
    assert others[0] is not _c.context()
    assert len(_c.contexts_of(_c.CPU, -1, 0)) >= 3


def run_module(**environment):
    command = [sys.executable, "-m", "tare", "--version"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_the_module_is_the_tool(tmp_path):
    tool = Path(_c.library._name).resolve().parent / "bin" / "tare"
    if not tool.exists():
        pytest.skip("the tool was not built")
    assert run_module().stdout == f"tare {tare.__version__}\n"
    copy = tmp_path / "libtare.so"  # of a library without a tool beside it
    copy.write_bytes(Path(_c.library._name).read_bytes())
    alone = run_module(TARE_LIBRARY=str(copy), PATH=str(tmp_path))
    assert alone.returncode == 1 and "is not installed here" in alone.stderr
    found = run_module(TARE_LIBRARY=str(copy), PATH=str(tool.parent))
    assert found.stdout == f"tare {tare.__version__}\n"


def test_a_c_program_builds_with_what_the_package_names(tmp_path):
    program = tmp_path / "program"
    command = [os.environ.get("CC", "cc"), f"{ROOT}/tests/install/main.c", "-I", tare.get_include(), tare.get_library()]
    command += ["-lm", f"-Wl,-rpath,{os.path.dirname(tare.get_library())}", "-o", str(program)]
    subprocess.run(command, check=True)
    text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert "0.693147" in text and text.startswith(tare.build_description())
