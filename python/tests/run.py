# SPDX-License-Identifier: Apache-2.0
"""run.py [--import MODULE] FILE...: runs each file of tests in a process of its own, forked from this one.

Importing PyTorch takes five seconds, longer than most files take. Here it is imported once; whatever else a file
imports, sets or patches stays in its process. With TARE_TEST_FILE only the file of that name runs.
"""

import importlib
import os
import pathlib
import sys
import time

import pytest


def run_forked(file):
    """The exit status of pytest in a new process."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", file]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(arguments):
    if arguments[:1] == ["--import"]:
        importlib.import_module(arguments[1])
        arguments = arguments[2:]
    wanted = os.environ.get("TARE_TEST_FILE")
    failed = []
    for file in arguments:
        name = pathlib.Path(file).name
        if wanted and name != wanted:
            continue
        start = time.monotonic()
        status = run_forked(file)
        print(f"{name}: {time.monotonic() - start:.1f} s, exit status {status}", flush=True)
        if status != 0:
            failed.append(name)
    print("failed:", *failed or ["none"])
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
