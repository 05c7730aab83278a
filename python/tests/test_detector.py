# SPDX-License-Identifier: Apache-2.0
"""examples/train_detector.py on eight images: it runs to its pictures, every loss trains, and a training that was
interrupted goes on bit for bit as if it had not been. The bootstrap's AP is pycocotools'."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
VOC = Path(os.environ.get("TARE_DATA") or ROOT.parent / "shared" / "data" / "bccd") / "dataset"
LIMIT, SIZE = 8, (96, 128)


@pytest.fixture
def example(monkeypatch):
    """Imports a module of the example, or skips."""
    for package in ("pycocotools", "PIL", "tqdm", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is missing, see examples/detector/requirements.txt")
    if not (VOC / "ImageSets").is_dir():
        pytest.skip(f"no real data: no {VOC} (TARE_DATA names the folder above)")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads wait for each other
    yield importlib.import_module
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def plan(example):
    source = example("detector.data").Source(VOC, SIZE, LIMIT)
    return example("detector.train").Plan(source, epochs=2, batch=4, looks=1)


def test_it_runs_to_its_pictures(example, tmp_path, capsys):
    words = [str(VOC), "--losses", "focal-2", "ghm-c", "--rates", "0.002", "--weights", "1", "--seeds", "0"]
    words += ["--limit", str(LIMIT), "--size", *map(str, SIZE), "--epochs", "2", "--jobs", "1"]
    words += ["--resamples", "20", "--out", str(tmp_path)]
    assert example("train_detector").main(words) == 0
    for name in ("precision", "gradient-norms", "who-gets-the-gradient", "test"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 5000
    rows = example("detector.experiment").read_csv(tmp_path / "test.csv")
    assert [row["loss"] for row in rows] == ["focal-2", "ghm-c"]
    assert all(0 <= float(row["AP50"]) <= 1 for row in rows)
    assert (tmp_path / "table.md").read_text().count("\n") == 4
    capsys.readouterr()


def test_every_loss_trains(example, plan, tmp_path):
    train, data = example("detector.train"), example("detector.data")
    for key in example("detector.losses").SETTINGS:
        training = train.Training(train.Run(key, 2e-3, 1.0, 0), plan, tmp_path)
        before = [one.detach().clone() for one in training.network.parameters()]
        found = training._step(*data.batch(training.data, torch.arange(4), torch.arange(4)))
        assert np.isfinite(found).all(), key
        after = list(training.network.parameters())
        assert all(torch.isfinite(one).all() for one in after), key
        assert any(not torch.equal(one, other) for one, other in zip(before, after)), key


def test_an_interrupted_training_goes_on_bit_for_bit(example, plan, tmp_path):
    train = example("detector.train")
    run = train.Run("ghm-c+r", 2e-3, 1.0, 3)

    def stop():
        raise KeyboardInterrupt

    whole = train.train(run, plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train.train(run, plan, tmp_path / "parts", report=stop)
    parts = train.train(run, plan, tmp_path / "parts")
    assert parts.epoch == 2 and parts.log == whole.log and parts.histograms == whole.histograms
    for one, other in ((whole.network, parts.network), (whole.loss, parts.loss)):
        states = other.state_dict()
        assert all(torch.equal(value, states[key]) for key, value in one.state_dict().items())
    with pytest.raises(ValueError, match="other settings"):
        other = example("dataclasses").replace(plan, epochs=3)
        train.train(run, other, tmp_path / "parts")


def test_the_bootstrap_has_the_precision_of_pycocotools(example, plan):
    """Objects moved by noise, and false ones; then drawing an image twice is having it twice."""
    data, score, bootstrap = (example(f"detector.{name}") for name in ("data", "score", "bootstrap"))
    known, random = data.load(plan.source), np.random.default_rng(5)
    found = []
    for boxes, labels in zip(known.val.boxes, known.val.labels):
        moved = np.concatenate([boxes.numpy(), boxes.numpy()[:4]])
        moved += random.normal(0, 2, moved.shape).astype(np.float32)
        of_class = np.concatenate([labels.numpy(), random.integers(0, 3, len(moved) - len(labels))])
        found.append(np.column_stack([moved, random.random(len(moved)), of_class]))
    compare = score.compared(found, known.val, known.classes)
    matches = bootstrap.matches(compare)
    expected = score.average_precision(compare, known.classes)
    for name, one in zip(known.classes, matches):
        assert bootstrap.average_precision(one, np.ones(LIMIT, int)).mean() == pytest.approx(expected[f"AP {name}"])
    once = bootstrap.average_precision(matches[0], np.ones(LIMIT, int))
    np.testing.assert_allclose(bootstrap.average_precision(matches[0], np.full(LIMIT, 2)), once, rtol=1e-12)
    assert 0.05 < expected["AP50"] < 0.99


def test_what_cannot_be_read_is_said(example, tmp_path):
    with pytest.raises(FileNotFoundError, match="Pascal VOC"):
        example("detector.voc").classes_of(tmp_path)


def test_boxes_and_differences_are_inverse(example):
    anchors = example("detector.anchors")
    some = torch.tensor([[0.0, 0, 10, 20], [5, 5, 40, 30]])
    boxes = torch.tensor([[2.0, 1, 9, 25], [0, 0, 50, 60]])
    torch.testing.assert_close(anchors.decode(some, anchors.encode(some, boxes)), boxes)
    torch.testing.assert_close(anchors.overlap(some, boxes).diagonal(), anchors.overlap_of_pairs(some, boxes))
    labels, _ = anchors.assign(some, torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
    assert labels.tolist() == [anchors.BACKGROUND] * 2
