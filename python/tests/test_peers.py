# SPDX-License-Identifier: Apache-2.0
"""bench/peers.py on a small batch: what it reports, draws and refuses. Its times are not looked at."""

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"
SLOW = ["--without", "torch.compile", "--without", "mmdetection", "--without", "optax"]  # to compile, or in themselves


@pytest.fixture
def peers(monkeypatch):
    """Imports peers.py and returns a function that calls it with arguments."""
    monkeypatch.syspath_prepend(str(BENCH))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads wait for each other

    def call(*arguments, library=os.environ["TARE_LIBRARY"]):
        command = ["peers.py", "--library", library, "--device", "cpu", "--rows", "60", "--classes", "5", *arguments]
        monkeypatch.setattr(sys, "argv", command)
        importlib.import_module("peers").main()

    yield call
    torch.set_num_threads(threads)


def test_the_report(peers, capfd):
    peers("--repeat", "7", *SLOW)
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["confidence"] == 0.95
    labels = {(one["family"], one["label"]) for one in found["losses"]}
    for family in ("focal", "sigmoid ce", "ghm-c", "softmax ce", "softmax focal"):
        assert (family, "Tare") in labels
    for one in found["losses"]:
        assert one["median_low_ms"] <= one["median_ms"] <= one["median_high_ms"]
        assert one["relative_time"]["low"] <= one["relative_time"]["median"] <= one["relative_time"]["high"]
        assert one["differs_from_tare"] is None or one["differs_from_tare"] < 1e-4, one["label"]
        assert one["gradient_error"] is None or one["gradient_error"] < 0.1, one["label"]
    assert found["rounds"] == 7 and found["noise"]["limit"] == 0.2 and found["version"].count(".") == 2
    assert found["log_softmax"] in ("native", "oneDNN", None)
    for entry in found["left_out"]:
        assert entry["why"] and f"left out: {entry['family']}: {entry['label']} ({entry['why']})" in err
    everyone = {label for _, label in labels} | {entry["label"] for entry in found["left_out"]}
    for name in ("kornia", "optax, jax.jit", "oneDNN's softmax, gradient from it", "F.cross_entropy", "mmcv"):
        assert name in everyone, f"neither timed nor named: {name}"


def test_fewer_than_six_rounds_have_no_interval(peers, capfd):
    peers("--repeat", "5", "--losses", "softmax", *SLOW)
    found = json.loads(capfd.readouterr().out)
    assert {one["family"] for one in found["losses"]} == {"softmax ce", "softmax focal"}
    assert all(one["median_low_ms"] is None and one["relative_time"]["high"] is None for one in found["losses"])


def test_the_table_and_the_picture(peers, capfd, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "peers.svg"
    peers("--repeat", "2", "--losses", "sigmoid", "--table", "--plot", str(picture), *SLOW)
    out = capfd.readouterr().out
    for text in (
        "60 x 5 f32",
        "x Tare",
        "a plain copy",
        "F.binary_cross_entropy",
        "left out: focal: optax, jax.jit (by --without)",
    ):
        assert text in out
    assert "softmax ce" not in out
    assert "<svg" in picture.read_text()


def test_a_picture_without_matplotlib(peers, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="--plot a.svg: .*matplotlib"):
        peers("--plot", "a.svg")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--rows", "0"], "argument --rows: '0': expected a whole number from 1"),
        (["--rows", "ten"], "argument --rows: 'ten': expected a whole number from 1"),
        (["--classes", "1"], "argument --classes: '1': expected a whole number from 2"),
        (["--repeat", "-3"], "argument --repeat: '-3': expected a whole number from 1"),
        (["--dtype", "f8"], "argument --dtype: invalid choice: 'f8'"),
        (["--plot", "a.txt"], "argument --plot: 'a.txt': a picture is .svg, .png or .pdf"),
        (["--losses", "focal"], "argument --losses: invalid choice: 'focal'"),
    ],
)
def test_wrong_values(peers, capfd, arguments, said):
    with pytest.raises(SystemExit) as refused:
        peers(*arguments)
    assert refused.value.code == 2
    assert said in capfd.readouterr().err


def test_wrong_names(peers, capfd):
    with pytest.raises(SystemExit, match="--library /nowhere/libtare.so: "):
        peers(library="/nowhere/libtare.so")
    with pytest.raises(SystemExit, match="--without 'numpy': no label has this text; there are Tare; "):
        peers("--without", "numpy", *SLOW)


def test_the_interval_is_the_tools_own(peers, monkeypatch):
    times = importlib.import_module("times")
    assert times.interval([1, 2, 3, 4, 5]) == (None, None)
    assert times.interval([6, 5, 4, 3, 2, 1]) == (1, 6)
    assert times.interval(list(range(1, 201))) == (86, 115)
    assert times.noise([1]) == {"spread": None, "limit": 0.2, "trusted": False}
    assert times.noise([1, 1, 1, 1])["trusted"] and not times.noise([1, 1, 2, 2])["trusted"]
