# SPDX-License-Identifier: Apache-2.0
"""One batch on two and three ranks (gloo): loss, gradient, counts and states are those of one process with all rows.

Three processes run every case, as one group of three and as one of two. Each has some rows, one has none, and one has
no objects.
"""

import copy
import datetime
import functools
import multiprocessing
import traceback

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

import tare.torch
from tare.compat import mmdet

try:
    from torch.distributed.tensor import DTensor
except ImportError:  # before PyTorch 2.5
    from torch.distributed._tensor import DTensor

ROWS, CLASSES, BINS = 60, 5, 10


def batch(seed=0):
    torch.manual_seed(seed)
    x, y = torch.randn(ROWS, CLASSES) * 2, torch.randint(-2, CLASSES, (ROWS,))
    y[:9] = -1  # the first rank has no objects
    level = torch.arange(ROWS) % 3
    drawn = {"w": torch.rand(ROWS), "t": torch.rand(ROWS, CLASSES), "s": torch.rand(ROWS)}
    return {"x": x, "y": y, "level": level, **drawn}


FOCAL = tare.torch.sigmoid_focal
CLASS_WEIGHTS = torch.linspace(0.5, 2, CLASSES)


def weighted(d, **options):
    return tare.torch.softmax_focal(
        d["x"], d["y"], row_weights=d["w"], class_weights=CLASS_WEIGHTS, normalizer="weights", **options
    )


def on_levels(d, **options):
    """The loss of three levels. One has no objects."""
    x, y, scores = levels_of(d)
    return tare.torch.sigmoid_quality_focal(x, [*y[:2], y[2].clamp(max=-1)], scores, **options)


def levels_of(d):
    return [[d[key][d["level"] == level] for level in range(3)] for key in ("x", "y", "s")]


# Losses of the tensors of a batch.
CASES = {
    "sum": lambda d, **o: FOCAL(d["x"], d["y"], **o),
    "elements": lambda d, **o: FOCAL(d["x"], d["y"], normalizer="elements", **o),
    "rows": lambda d, **o: FOCAL(d["x"], d["y"], normalizer="rows", **o),
    "positives": lambda d, **o: FOCAL(d["x"], d["y"], normalizer="positives", **o),
    "number": lambda d, **o: FOCAL(d["x"], d["y"], normalizer=7.5, **o),
    "tensor": lambda d, **o: FOCAL(d["x"], d["y"], normalizer=torch.tensor(7.5), **o),
    "no objects": lambda d, **o: FOCAL(d["x"], d["y"].clamp(max=-1), normalizer="positives", **o),
    "scores": lambda d, **o: tare.torch.sigmoid_varifocal(d["x"], d["y"], d["s"], normalizer="targets", **o),
    "addend": lambda d, **o: FOCAL(d["x"], d["y"], normalizer="positives", normalizer_addend=1.0, **o),
    "minimum": lambda d, **o: FOCAL(d["x"], d["y"], normalizer="positives", normalizer_minimum=500.0, **o),
    "dense": lambda d, **o: FOCAL(d["x"], targets=d["t"].round(), normalizer="ones", **o),
    "softmax, rows": lambda d, **o: tare.torch.softmax_ce(d["x"], d["y"], normalizer="rows", **o),
    "softmax, weights": weighted,
    "selection": lambda d, **o: FOCAL(d["x"], d["y"], hard_fraction=1.0, normalizer="rows", **o),
    "levels": lambda d, **o: FOCAL([d["x"][::2], d["x"][1::2]], [d["y"][::2], d["y"][1::2]], normalizer="rows", **o),
    "own divisors": lambda d, **o: on_levels(d, level_divisors=[3, None, torch.tensor(7.0)], normalizer="rows", **o),
    "own divisors, sum": lambda d, **o: on_levels(d, level_divisors=[3, None, 7.5], level_weights=[1, 0.5, 2], **o),
    "a divisor a level": lambda d, **o: on_levels(d, normalizer_scope="level", normalizer="positives", **o),
    "a divisor a level, bounds": lambda d, **o: on_levels(
        d, normalizer_scope="level", normalizer="targets", normalizer_addend=1.0, normalizer_minimum=7.0, **o
    ),
    "both": lambda d, **o: on_levels(d, normalizer_scope="level", normalizer="ones", level_divisors=[None, 2, 9], **o),
    "level weights": lambda d, **o: on_levels(d, level_weights=[1, 0.5, 2], normalizer="positives", **o),
    "level weights, ghm-c": lambda d, **o: tare.torch.ghm_c(
        *levels_of(d)[:2], bins=BINS, level_weights=[1.0, 0.25, 2], **o
    ),
    "ghm-c": lambda d, **o: tare.torch.ghm_c(d["x"], d["y"], bins=BINS, **o),
    "ghm-c, mmdet": lambda d, **o: tare.torch.ghm_c(d["x"], d["y"], bins=BINS, variant="mmdet", **o),
    "ghm-r": lambda d, **o: tare.torch.ghm_r(d["x"] * 0.1, d["t"], d["y"], bins=BINS, **o),
}


def close(found, expected):
    """To 1e-6 of the norm."""
    assert (found - expected).norm() <= 1e-6 * expected.norm() + 1e-12, (found, expected)


def check_shares(group, rows, case, gradients):
    """The loss of these rows of a batch, with the process group, against all rows without."""
    ranks, whole = dist.get_world_size(group), batch()
    part = {key: one[rows] for key, one in whole.items()}
    part["x"].requires_grad_(), whole["x"].requires_grad_()
    expected = CASES[case](whole)
    (gradient,) = torch.autograd.grad(expected, whole["x"])
    found = CASES[case](part, process_group=group, gradients=gradients)
    (ours,) = torch.autograd.grad(found, part["x"])
    share = ranks if gradients == "averaged" else 1
    close(ours / share, gradient[rows])
    total = found.detach().double()
    dist.all_reduce(total, group=group)
    close(total / share, expected.detach().double())


def check_states(group, rows):
    """Three steps of a module with momentum: states bit by bit, and gradients."""
    alone, ours = (tare.torch.GHMC(bins=BINS, momentum=0.75) for _ in range(2))
    grouped = copy.deepcopy(tare.torch.GHMC(bins=BINS, momentum=0.75, process_group=group))
    for step in range(3):
        whole = batch(step)
        part = {key: one[rows] for key, one in whole.items()}
        part["x"].requires_grad_(), whole["x"].requires_grad_()
        (gradient,) = torch.autograd.grad(alone(whole["x"], whole["y"]), whole["x"])
        for module, options in ((ours, {"process_group": group}), (grouped, {})):
            found = module(part["x"], part["y"], **options)
            close(torch.autograd.grad(found, part["x"])[0] / dist.get_world_size(group), gradient[rows])
            assert torch.equal(module.state, alone.state)
    rest = tare.torch.ghm_c(
        part["x"], part["y"], bins=BINS, state=ours.state, use_stored_density=True, reduction="rows"
    )
    same = ours(part["x"], part["y"], process_group=group, use_stored_density=True, reduction="rows")
    assert torch.equal(same, rest)  # of stored densities no collective is made, and rows are not scaled


def check_level_losses(group, rows):
    """The levels' losses are shares, too, and come after the class sums."""
    whole, ranks = batch(), dist.get_world_size(group)
    part = {key: one[rows] for key, one in whole.items()}
    for options in ({"normalizer_scope": "level", "normalizer": "rows"}, {"level_divisors": [2, None, 3]}):
        expected = on_levels(whole, level_losses=True, class_sums=True, **options)
        found = on_levels(part, level_losses=True, class_sums=True, process_group=group, **options)
        assert [one.shape for one in found] == [one.shape for one in expected]
        losses = found[2].double()
        dist.all_reduce(losses, group=group)
        close(losses / ranks, expected[2].double())
        close(found[2].sum(), found[0])
        torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-12)
    loss, losses = tare.torch.ghm_c(*levels_of(part)[:2], bins=BINS, level_losses=True, process_group=group)
    close(losses.sum(), loss)


def check_normalizer_sums(group, rows):
    """What ranks that communicate in another way add up."""
    whole = batch()
    part = {key: one[rows] for key, one in whole.items()}
    for scope, shape in (("batch", ()), ("level", (3,))):
        expected, found = (
            tare.torch.normalizer_sums(
                "sigmoid-quality-focal",
                *levels_of(d)[:2],
                scores=levels_of(d)[2],
                normalizer_scope=scope,
            )
            for d in (whole, part)
        )
        assert list(found) == ["elements", "rows", "positives", "weights", "targets", "ones"]
        for name, one in found.items():
            assert one.shape == shape and one.dtype == torch.float64
            dist.all_reduce(one, group=group)
            torch.testing.assert_close(one, expected[name], rtol=1e-12, atol=0)


def check_class_sums(group, rows):
    whole = batch()
    part = {key: one[rows] for key, one in whole.items()}
    for options in ({"normalizer": "positives"}, {}):
        _, sums = FOCAL(part["x"], part["y"], class_sums=True, process_group=group, **options)
        _, expected = FOCAL(whole["x"], whole["y"], class_sums=True, **options)
        torch.testing.assert_close(sums, expected, rtol=1e-6, atol=1e-12)
        assert torch.equal(sums[:, 3], expected[:, 3])  # counts


def check_running_counts(group, rows):
    """Class weights that follow the counts of all ranks, and gradient norms."""
    alone = tare.torch.nn.RunningClassBalancedLoss(CLASSES, normalizer="positives", norm_histogram=8)
    ours = copy.deepcopy(
        tare.torch.nn.RunningClassBalancedLoss(CLASSES, normalizer="positives", norm_histogram=8, process_group=group)
    )
    for step in range(2):
        whole = batch(step)
        part = {key: one[rows] for key, one in whole.items()}
        part["x"].requires_grad_(), whole["x"].requires_grad_()
        expected, norms = alone(whole["x"], whole["y"])
        found, counts = ours(part["x"], part["y"])
        (gradient,) = torch.autograd.grad(expected, whole["x"])
        close(torch.autograd.grad(found, part["x"])[0] / dist.get_world_size(group), gradient[rows])
        assert torch.equal(counts, norms) and torch.equal(ours.counts, alone.counts)


def check_running_gradients(group, rows):
    """EQLv2 and equalized focal loss: running gradients to rounding, losses of the batches after them."""
    for kind in (tare.torch.nn.EQLv2Loss, tare.torch.nn.EqualizedFocalLoss):
        alone = kind(CLASSES, exempt=1, normalizer="positives")
        ours = kind(CLASSES, exempt=1, normalizer="positives", process_group=group)
        for step in range(4):
            check_module(group, rows, step, ours, alone)
            torch.testing.assert_close(ours.gradients, alone.gradients, rtol=1e-6, atol=1e-12)
        assert ours.steps == alone.steps == 4
        assert torch.equal(ours.state, of_first_rank(ours.state, group))


def check_seesaw(group, rows):
    """Seesaw loss: counts exactly, and losses that follow them."""
    alone = tare.torch.nn.SeesawLoss(CLASSES, normalizer="positives")
    ours = tare.torch.nn.SeesawLoss(CLASSES, normalizer="positives", process_group=group)
    for step in range(4):
        check_module(group, rows, step, ours, alone)
        assert torch.equal(ours.state, alone.state)
    assert alone.counts.sum() > 0


def check_mmdet_seesaw_and_eqlv2(group, rows):
    """The states of compat modules; each rank divides by its own rows."""
    for kind, extra in ((mmdet.SeesawLoss, 2), (mmdet.EQLV2Loss, 1)):
        alone = kind(num_classes=CLASSES, reduction="sum")
        ours = kind(num_classes=CLASSES, reduction="sum", process_group=group)
        for step in range(3):
            whole = batch(step)
            x = torch.cat([whole["x"], whole["x"][:, :extra]], 1)
            y = whole["y"].where(whole["y"] >= 0, CLASSES)
            alone(x, y), ours(x[rows], y[rows])
        if kind is mmdet.SeesawLoss:
            assert torch.equal(ours.state, alone.state)
        else:
            torch.testing.assert_close(ours.gradients, alone.gradients, rtol=1e-6, atol=1e-12)
            assert ours.steps == 3
    if group is dist.group.WORLD:  # which the original's own argument stands for
        wide = mmdet.EQLV2Loss(num_classes=CLASSES, reduction="sum", use_distributed=True)
        for step in range(3):
            whole = batch(step)
            x = torch.cat([whole["x"], whole["x"][:, :1]], 1)
            wide(x[rows], whole["y"].where(whole["y"] >= 0, CLASSES)[rows])
        assert torch.equal(wide.state, ours.state)


def check_module(group, rows, step, ours, alone):
    """One training step: the gradient, and the losses of all ranks, are those of all rows on one."""
    whole = batch(step)
    part = {key: one[rows] for key, one in whole.items()}
    part["x"].requires_grad_(), whole["x"].requires_grad_()
    expected, found = alone(whole["x"], whole["y"]), ours(part["x"], part["y"])
    (gradient,) = torch.autograd.grad(expected, whole["x"])
    close(torch.autograd.grad(found, part["x"])[0] / dist.get_world_size(group), gradient[rows])
    total = found.detach().double() / dist.get_world_size(group)
    dist.all_reduce(total, group=group)
    close(total, expected.detach().double())


def of_first_rank(state, group):
    first = state.clone()
    dist.broadcast(first, 0, group=group)
    return first


def check_heads(group, rows):
    torch.manual_seed(1)
    features, weight, y = torch.randn(ROWS, 4), torch.randn(CLASSES, 4), batch()["y"]
    try:
        tare.torch.sigmoid_ce(tare.torch.Head(features, weight), y)
    except tare.Error as error:
        assert error.name == "TARE_STATUS_NO_BLAS"
        return
    for name, options in (("sigmoid-focal", {"normalizer": "positives"}), ("ghm-c", {"bins": BINS})):
        loss = functools.partial(tare.torch.loss, name, **options)
        given = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(tare.torch.Head(features, given), y), given)
        found, sums = loss(tare.torch.Head(features[rows], given), y[rows], class_sums=True, process_group=group)
        _, expected = loss(tare.torch.Head(features, weight), y, class_sums=True)
        torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-9)
        ours = torch.autograd.grad(found, given)[0] / dist.get_world_size(group)
        dist.all_reduce(ours, group=group)
        close(ours, gradient)


def check_data_parallel(group, rows):
    torch.manual_seed(1)
    features, y = torch.randn(ROWS, 4), batch()["y"]
    layer = torch.nn.Linear(4, CLASSES)
    expected = torch.autograd.grad(FOCAL(layer(features), y, normalizer="positives"), list(layer.parameters()))
    model = torch.nn.parallel.DistributedDataParallel(layer, process_group=group)
    FOCAL(model(features[rows]), y[rows], normalizer="positives", process_group=group).backward()
    for one, other in zip(layer.parameters(), expected):
        close(one.grad, other)


def check_refusals(group):
    x, y = batch()["x"], batch()["y"]
    for options, text in (
        ({"reduction": "rows"}, "only a sum is divided"),
        ({"gradients": "mean"}, "gradients is 'mean'"),
        ({"process_group": "world"}, "process_group is 'world'"),
        ({"process_group": None, "gradients": "summed"}, "without a process_group"),
    ):
        with pytest.raises(ValueError, match=text):
            FOCAL(x, y, **{"process_group": group, **options})
    if dist.get_world_size(group) == 3:
        whole = DTensor.from_local(x, init_device_mesh("cpu", (3,)))
        with pytest.raises(TypeError, match="logits is a DTensor; give to_local"):
            FOCAL(whole, y)
    with pytest.raises(ValueError, match="density is 'exact'"):
        tare.torch.ghm_c(x, y, density="exact", process_group=group)


SHARES = {  # of ranks, by the size of the group: rows of the first, the second, ...
    "uneven": {2: [slice(0, 9), slice(9, ROWS)], 3: [slice(0, 9), slice(9, 20), slice(20, ROWS)]},
    "one without rows": {2: [slice(0, ROWS), slice(0, 0)], 3: [slice(0, 9), slice(0, 0), slice(9, ROWS)]},
}
OTHERS = [
    check_states,
    check_class_sums,
    check_level_losses,
    check_normalizer_sums,
    check_running_counts,
    check_running_gradients,
    check_seesaw,
    check_mmdet_seesaw_and_eqlv2,
    check_heads,
    check_data_parallel,
]


def run_cases(rank, folder, results):
    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=20)  # for a rank that failed before a collective
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3, timeout=wait)
    two = dist.new_group([0, 1])
    failures = {}
    for group, ranks in ((dist.group.WORLD, 3), (two, 2)):
        if rank >= ranks:
            continue
        checks = {("refusals", ""): lambda group=group: check_refusals(group)}
        for shares, by_size in SHARES.items():
            rows = by_size[ranks][rank]
            for case in CASES:
                for gradients in ("averaged", "summed"):
                    checks[case, gradients + shares] = functools.partial(check_shares, group, rows, case, gradients)
            for check in OTHERS:
                checks[check.__name__, shares] = functools.partial(check, group, rows)
        for key, check in checks.items():
            try:
                check()
            except Exception:
                failures[f"{key} of {ranks}, rank {rank}"] = traceback.format_exc()
    if rank == 2:
        with pytest.raises(ValueError, match="does not contain this process"):
            FOCAL(batch()["x"], batch()["y"], process_group=two)
    results.put((rank, failures))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """What failed on which rank. The processes are forked from one that has imported PyTorch and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    results, folder = context.Queue(), tmp_path_factory.mktemp("ranks")
    workers = [context.Process(target=run_cases, args=(rank, folder, results)) for rank in range(3)]
    for worker in workers:
        worker.start()
    try:
        found = dict(results.get(timeout=90) for _ in workers)
    finally:
        for worker in workers:
            worker.join(10)
            worker.kill()
    assert all(worker.exitcode == 0 for worker in workers)
    return {key: text for rank in sorted(found) for key, text in found[rank].items()}


@pytest.mark.parametrize("case", [*CASES, *[check.__name__ for check in OTHERS], "refusals"])
def test_ranks_are_one_process(case, failures):
    wrong = {key: text for key, text in failures.items() if f"('{case}'," in key}
    assert not wrong, "\n".join(f"{key}\n{text}" for key, text in wrong.items())
