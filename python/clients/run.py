# SPDX-License-Identifier: Apache-2.0
"""Trains real models with their library's losses and with Tare's in their place, on a CPU, and compares.

    python python/clients/run.py LIBRARY [--only TEXT] [--double] [--folder FOLDER]

LIBRARY: torchvision, transformers, mmdet, ultralytics, rfdetr, timm or detectron2. The script makes an environment in
~/.cache/tare/clients, with packages of PyPI. PyTorch comes from ~/.cache/tare/torch if `./dev test` has put it there.
The C library is that of TARE_LIBRARY, or of a folder build*/ of this repository. detectron2 is not on PyPI: FOLDER is a
copy of its repository.

Each model has random weights and tiny random inputs. Both trainings have the same seed and take five steps. The loss of
step 1 must agree to 1e-6, its gradient to 1e-5 of its norm, and the later losses to 1e-3. A model that differs more is
trained in float64, too; --double does so with every model. The times are medians of the CPU time of forward and
backward of the loss part, on the recorded inputs of step 1, in alternating rounds, on one thread, warm. Exit status 1:
a difference is above its bound in float64 as well, or a model cannot be run.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pathlib
import subprocess
import sys
import venv
import warnings

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path.home() / ".cache" / "tare"
PACKAGES = {  # and PyTorch
    "torchvision": ["torchvision"],
    "transformers": ["transformers", "torchvision", "timm", "scipy"],
    "mmdet": ["mmdet==3.3.0", "mmcv-lite==2.1.0", "mmengine", "torchvision", "scipy"],
    "ultralytics": ["ultralytics", "torchvision"],
    "rfdetr": ["rfdetr", "torchvision"],
    "timm": ["timm", "torchvision"],
    "detectron2": ["fvcore", "iopath", "omegaconf", "pycocotools", "cloudpickle", "torchvision", "matplotlib"],
}


def environment(library: str) -> pathlib.Path:
    """The Python of the library's environment, made if it is not there."""
    folder = CACHE / "clients" / library
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists() and done.read_text() == " ".join(PACKAGES[library]):
        return python
    print(f"installing {', '.join(PACKAGES[library])} in {folder}", flush=True)
    venv.create(folder, symlinks=True, with_pip=True)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shared = CACHE / "torch" / "lib" / name / "site-packages"
    packages = PACKAGES[library]
    if (shared / "torch").is_dir():
        (folder / "lib" / name / "site-packages" / "torch.pth").write_text(f"{shared}\n")
    else:
        packages = ["torch", "numpy", *packages]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    done.write_text(" ".join(PACKAGES[library]))
    return python


def library_file() -> str:
    """The C library: TARE_LIBRARY, or the newest of this repository's builds."""
    found = sorted(HERE.parents[1].glob("build*/libtare.so"), key=lambda one: one.stat().st_mtime)
    given = os.environ.get("TARE_LIBRARY") or (str(found[-1]) if found else "")
    if not given:
        raise SystemExit("no library: cmake --build build --target tare, or set TARE_LIBRARY")
    return given


def restart(library: str) -> None:
    """Runs this script again, in the library's environment."""
    python = environment(library)
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": path, "TARE_LIBRARY": library_file(), "TARE_CLIENT": library, "HF_HUB_OFFLINE": "1"}
    settings |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(CACHE / "clients")}
    os.execve(python, [str(python), __file__, *sys.argv[1:]], {**os.environ, **settings})


def show(name: str, clients, library: str, double: bool) -> bool:
    """One row of the table, or two; False if the model breaks."""
    import torch
    from training import compare

    result = None
    for dtype in (torch.float32, torch.float64):
        try:
            result = compare(clients[name], library, dtype)
        except Exception as error:
            print(f"| {name} | {str(dtype)[6:]} | not run: {type(error).__name__}: {str(error)[:200]} |", flush=True)
            return False
        print(f"| {name} | {str(dtype)[6:]} | {result.first:.1e} | {result.gradient:.1e} | {result.later:.1e} ", end="")
        print(f"| {result.theirs:.1f} | {result.ours:.1f} | {result.replaced} |", flush=True)
        if result.holds() and not double:
            break
    return result.holds()


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=PACKAGES)
    parser.add_argument("--only", default="", help="a part of a model's name")
    parser.add_argument("--double", action="store_true", help="train each model in float64, too")
    parser.add_argument("--folder", type=pathlib.Path, help="a copy of detectron2's repository")
    arguments = parser.parse_args()
    if os.environ.get("TARE_CLIENT") != arguments.library:
        restart(arguments.library)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    if arguments.folder:
        sys.path.insert(0, str(arguments.folder.resolve()))
    clients = importlib.import_module(f"trained_{arguments.library}").CLIENTS
    print("| model | type | loss 1 | gradient 1 | losses 2-5 | original, ms | Tare, ms | replaced |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    names = [name for name in clients if arguments.only in name]
    held = [show(name, clients, arguments.library, arguments.double) for name in names]
    return not all(held)


if __name__ == "__main__":
    sys.exit(main())
