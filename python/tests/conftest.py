# SPDX-License-Identifier: Apache-2.0
"""Writes, where TARE_TAP names a file, the report that tests/harness/tally.sh counts, as Criterion does."""

import os

_file = os.environ.get("TARE_TAP")


def _write(line):
    if _file:
        with open(_file, "a") as report:
            report.write(line + "\n")


def pytest_collection_finish(session):
    _write(f"1..{len(session.items)}")


def pytest_runtest_logreport(report):
    name = report.nodeid.split("/")[-1]
    if report.skipped:
        why = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "expected to fail"
        _write(f"ok - {name} # SKIP {why}")
    elif report.when == "call" or report.failed:
        _write(f"{'ok' if report.passed else 'not ok'} - {name}")
