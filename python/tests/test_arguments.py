# SPDX-License-Identifier: Apache-2.0
"""tare.torch takes no argument on trust: what would wrap, be cut, be dereferenced or be guessed is refused."""

import decimal
import fractions

import numpy as np
import pytest
import reference
import torch

import tare
import tare.torch

torch.manual_seed(0)
X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, -1, 0])


def loss(name="sigmoid-focal", logits=X, labels=Y, **options):
    return tare.torch.loss(name, logits, labels, **options)


def refused(error, text, **options):
    for kind in (error, ValueError) if error is TypeError else (error,):
        with pytest.raises(kind, match=text):
            loss(**options)


def test_alpha_none_is_off():
    """Not the library's 0.25, which is the default."""
    targets = reference.one_hot(Y.numpy(), 4)
    plain, _ = reference.sigmoid(X.double().numpy(), targets, 2.0)
    quarter, _ = reference.sigmoid(X.double().numpy(), targets, 2.0, 0.25)
    for off in (None, -1, -1.0):
        assert tare.torch.sigmoid_focal(X, Y, alpha=off).item() == pytest.approx(plain.sum(), rel=1e-6)
    assert tare.torch.sigmoid_focal(X, Y).item() == pytest.approx(quarter.sum(), rel=1e-6)
    assert abs(plain.sum() - quarter.sum()) > 0.1
    for function, name in (
        (tare.torch.sigmoid_ce, "sigmoid-ce"),
        (tare.torch.softmax_focal, "softmax-focal"),
        (tare.torch.sigmoid_poly1, "sigmoid-poly1"),
    ):
        assert torch.equal(function(X, Y.abs(), alpha=None), loss(name, labels=Y.abs(), alpha=-1.0))
        assert torch.equal(function(X, Y.abs()), loss(name, labels=Y.abs(), alpha=-1.0))


@pytest.mark.parametrize("name", ["first_label", "background_label", "ignore_label", "classes", "bins"])
def test_an_integer_is_one_and_fits(name):
    kind = "ghm-c" if name == "bins" else "sigmoid-focal"
    tensors = [torch.tensor(3.0), torch.tensor(True), torch.tensor([3, 4])]
    for value in (3.0, 3.5, True, "3", 3j, np.bool_(True), [3], *tensors):
        refused(TypeError, f"{name} is .*must be an integer", name=kind, **{name: value})
    for value in (2**70, -(2**70), 2**63, 2**64 + 3):
        refused(ValueError, f"{name} is {value}; it must be in", name=kind, **{name: value})
    assert torch.equal(loss("ghm-c", bins=np.int16(7)), loss("ghm-c", bins=torch.tensor(7)))
    for value in (2**33 + 30, 2**32 + 30, 0, -1):
        refused(ValueError, "(bins|classes) is", name="ghm-c", **{"bins" if name == "bins" else "classes": value})


def test_no_argument_becomes_a_pointer():
    for value in (4096, 0, 2**40, "4096", [0.1] * 4, np.ones(4, np.float32), None):
        for key in ("alpha_per_class", "class_weights", "positive_weights", "state"):
            if value is not None:
                refused(TypeError, f"{key}", name="ghm-c" if key == "state" else "sigmoid-ce", **{key: value})
    alpha = torch.rand(4)
    expected = tare.torch.sigmoid_focal(X, Y, alpha=alpha)
    spaced = torch.stack([alpha, alpha], 1)[:, 0]
    for given in (alpha, alpha.double(), spaced):
        assert torch.equal(tare.torch.sigmoid_focal(X, Y, alpha_per_class=given), expected)
    assert torch.equal(loss(alpha=torch.tensor(0.25)), loss(alpha=0.25))
    refused(ValueError, "alpha and alpha_per_class are two names", alpha=0.5, alpha_per_class=alpha)
    refused(ValueError, "alpha and alpha_per_class are two names", alpha=alpha, alpha_per_class=alpha)
    refused(ValueError, r"alpha_per_class has 3 elements; there are 4", alpha_per_class=torch.ones(3))
    refused(ValueError, r"alpha_per_class has shape \(4, 1\)", alpha_per_class=torch.ones(4, 1))
    for key in ("kind", "levels", "reserved_words", "arrays", "singles", "loss", "traced", "keep-gradient"):
        refused(TypeError, f"has no parameter '{key}'", **{key: 4096})
    spec = "loss=sigmoid-focal reduction=sum normalizer=sum first_label=0 background_label=-1 ignore_label=-2 "
    spec += "background_weight=1.0 classes=0 arrays=labels singles="
    torch.ops.tare.loss([X], [Y], spec, 1.0)
    for words in ("alpha_per_class=4096", "gamma=nan", "state=4096", "gamma=x"):  # the operator by itself
        with pytest.raises(ValueError):
            torch.ops.tare.loss([X], [Y], spec.replace("loss=", words + " loss="), 1.0)


@pytest.mark.parametrize("name", ["gamma", "alpha", "background_weight", "normalizer"])
def test_a_number_is_finite_and_real(name):
    for value in (float("nan"), float("inf"), -float("inf"), np.float32("nan"), 10**400):
        refused(ValueError, f"{name} is .*; it must be finite", **{name: value})
    for value in (True, 1 + 2j, np.complex64(1), b"1", object(), np.ones(3)):
        refused(TypeError, f"{name} is .*; it must be a number", **{name: value})
    if name != "normalizer":
        refused(TypeError, "must be a number", **{name: "2"})
    if name != "alpha":
        refused(TypeError, "must be a number", **{name: None})
    expected = loss(**{name: 0.5})
    for value in (np.float32(0.5), np.array(0.5), fractions.Fraction(1, 2), decimal.Decimal("0.5")):
        assert torch.equal(loss(**{name: value}), expected)


def test_keyword_functions_do_not_turn_text_into_numbers():
    calls = [
        (tare.torch.sigmoid_focal, "gamma"),
        (tare.torch.sigmoid_poly1, "gamma"),
        (tare.torch.sigmoid_poly1, "epsilon"),
        (tare.torch.softmax_focal, "gamma"),
        (tare.torch.ghm_c, "momentum"),
    ]
    for function, key in calls:
        for value in ("2", None, True, torch.ones(2)):
            with pytest.raises(TypeError, match=f"{key} is .*; it must be a number"):
                function(X, Y.abs(), **{key: value})
        with pytest.raises(TypeError, match="has no parameter 'gama'"):
            function(X, Y.abs(), gama=1)
    with pytest.raises(TypeError, match="mu is None"):
        tare.torch.ghm_r(X, X, mu=None)


def test_words():
    for name in ("x\0y", "sigmoid-focal\0", "", "focal", "sigmoid-focal gamma=3", None, b"sigmoid-ce", 1, ["x"], X):
        refused(ValueError, "there is no loss .*; there are: sigmoid-ce", name=name)
    for reduction in ("mean", "sum\0", "", None, 1, "sum normalizer=rows"):
        refused(ValueError, "reduction is .*; it is one of: sum, rows, none", reduction=reduction)
    for normalizer in ("mean", "value", "sum\0", "rows reduction=none", b"sum"):
        refused(ValueError, "normalizer is", normalizer=normalizer)
    for key, words in (("density", "unit-region, exact"), ("variant", "paper, mmdet")):
        for value in ("nonsense", "exact\0", None, 2, -1, 1.0):
            refused(ValueError, f"{key} is .*; it is one of: {words}", name="ghm-c", **{key: value})
    for value in (2, "yes", None, 0.0):
        refused(TypeError, "use_stored_density is .*; it must be True or False", name="ghm-c", use_stored_density=value)


NO_TENSORS = {
    "list": X.tolist(),
    "array": X.numpy(),
    "number": 3.0,
    "text": "abc",
    "none": {"a": 1},
    "generator": (x for x in X),
}


@pytest.mark.parametrize("kind", NO_TENSORS)
@pytest.mark.parametrize(
    "name", ["labels", "targets", "row_weights", "element_weights", "class_weights", "positive_weights"]
)
def test_what_is_no_tensor(name, kind):
    refused(TypeError, f"{name}.* is of type .*; it must be a tensor", **{name: NO_TENSORS[kind]})
    if name not in ("class_weights", "positive_weights"):
        with pytest.raises((TypeError, ValueError), match=f"{name}.*(must be a tensor|levels)"):
            loss(logits=[X, X], **{"labels": [Y, Y], name: NO_TENSORS[kind]})


def test_logits_that_are_no_tensors():
    for value in (X.numpy(), X.tolist(), None, 3.0, [X, X.numpy()], [X, None]):
        refused(TypeError, r"logits.* is of type .*; it must be a tensor", logits=value, labels=[Y, Y])
    refused(ValueError, "labels and targets are None", labels=None)
    refused(TypeError, "alpha is", alpha=[0.1] * 4)
    head = torch.randn(6, 3), torch.randn(4, 3), torch.randn(4)
    for index, place in enumerate(("features", "weight", "bias")):
        given = list(head)
        given[index] = given[index].numpy()
        refused(TypeError, f"{place} is of type ndarray", logits=tare.torch.Head(*given))
    for value in (-1, 2**63, 3.5, True, "1"):
        refused(ValueError, "workspace is", logits=tare.torch.Head(*head, workspace=value))


def test_tensors_of_other_kinds():
    ones = torch.ones(6, 4)
    kinds = {
        "sparse": lambda t: t.float().to_sparse(),
        "csr": lambda t: t.float().reshape(len(t), -1).to_sparse_csr(),
        "quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
        "nested": lambda t: torch.nested.nested_tensor([t, t]),
    }
    for make in kinds.values():
        for name, tensor in {
            "logits": X,
            "labels": Y,
            "targets": ones,
            "row_weights": ones[:, 0],
            "class_weights": ones[0],
            "alpha": ones[0],
        }.items():
            refused(
                TypeError,
                f"{'alpha' if name == 'alpha' else name}.* is a sparse, quantized or nested",
                **{name: make(tensor)},
            )


def test_types_of_elements():
    ones = torch.ones(6, 4)
    tensors = {
        "row_weights": ones[:, 0],
        "element_weights": ones,
        "class_weights": ones[0],
        "positive_weights": ones[0],
        "alpha": ones[0] / 2,
        "normalizer": torch.tensor(2),
    }
    for name, tensor in tensors.items():
        refused(TypeError, "real numbers", **{name: tensor.to(torch.complex64)})
        expected = loss(**{name: tensor})
        assert torch.equal(loss(**{name: tensor.double()}), expected)
        if name != "alpha":
            assert torch.equal(loss(**{name: tensor.to(torch.int64)}), expected)
    for dtype in (torch.complex64, torch.int32, torch.bool, torch.uint8):
        refused(ValueError, "logits are torch", logits=X.to(dtype))
        refused(ValueError, "targets are torch", labels=None, targets=ones.to(dtype))
    for dtype in (torch.float32, torch.bool, torch.uint64):
        refused(ValueError, "labels are torch", labels=Y.to(dtype))
    refused(ValueError, "row_weights hold 1e.300", row_weights=torch.full((6,), 1e300, dtype=torch.float64))
    refused(ValueError, "on cpu and meta", labels=Y.to("meta"))
    refused(ValueError, r"on cpu and meta \(class_weights\)", class_weights=torch.ones(4, device="meta"))


def test_a_state_is_one():
    state = tare.torch.ghm_state(8)
    options = {"name": "ghm-c", "bins": 8, "momentum": 0.75}
    for value in (4096, state.numpy(), state.tolist()):
        refused(TypeError, "state is of type", state=value, **options)
    for value in (state.float(), state.int(), torch.zeros(52, dtype=torch.int64)[::2], state[0].expand(26)):
        refused(ValueError, "state must be a contiguous int64 tensor", state=value, **options)
    refused(ValueError, "on cpu and meta", state=state.to("meta"), **options)
    refused(TypeError, "has no parameter 'state'", state=state)
    states = [tare.torch.ghm_state(8) for _ in range(2)]
    for i, state in enumerate(states):
        loss(logits=X * (i + 1), state=state, **options)
    average = (states[0].double() * 0.5 + states[1].double() * 0.5).long()
    random = torch.randint(-(2**62), 2**62, (26,))
    for value in (average, states[0] // 2, random, random.abs(), torch.full((26,), -1), torch.full((26,), 2**62)):
        refused(ValueError, "state holds .*Start from ghm_state", state=value, **options)
        with pytest.raises(ValueError, match="state holds"):
            tare.torch.ghm_density("ghm-c", value, bins=8, momentum=0.75)
    for call in (
        lambda: tare.torch.ghm_density("ghm-c", [0] * 26, bins=8),
        lambda: tare.torch.ghm_state(2**33 + 30),
        lambda: tare.torch.ghm_state(3.0),
        lambda: tare.torch.ghm_density("focal", states[0], bins=8),
        lambda: tare.torch.ghm_density("ghm-c", states[0], bins=8, momentum="0.75"),
        lambda: tare.torch.ghm_histogram("ghm-c", X, Y, bins=8, state=4096),
    ):
        with pytest.raises(ValueError, match="state is of type|bins is|there is no loss|momentum is"):
            call()


def test_messages_speak_of_pythons_arguments():
    cases = [
        ({"gamma": -1}, "gamma is -1; it must be in [0,10000]"),
        ({"alpha": 2}, "alpha is 2; it must be in [0,1]"),
        ({"normalizer": 0}, "normalizer is 0; it must be finite and not 0"),
        ({"ignore_label": -1}, "ignore_label is -1; it must differ from background_label"),
        ({"name": "softmax-ce", "labels": Y.abs(), "alpha": 0.3}, "softmax-ce has no alpha"),
        ({"name": "softmax-ce", "labels": Y.abs(), "alpha": X[0]}, "softmax-ce has no alpha"),
        ({"name": "ghm-c", "momentum": 0.5}, "momentum is 0.5 and state is None; it needs a state, from ghm_state(30)"),
        ({"name": "ghm-r"}, "targets is None; ghm-r needs targets"),
        ({"labels": Y + 9}, "label of row 0 is 9"),
        ({"name": "softmax-ce", "element_weights": X}, "softmax-ce"),
        ({"name": "ghm-c", "normalizer": "rows"}, "ghm-c"),
        ({"name": "ghm-c", "density": "exact", "variant": "mmdet"}, "density is 'exact'"),
    ]
    for options, text in cases:
        with pytest.raises(ValueError) as caught:
            loss(**options)
        message = str(caught.value).split(" (TARE_")[0]
        assert text in message
        for word in ("->", "NULL", "TARE_", "tare_", "0x", "(nil)", "-1 and", "struct"):
            assert word not in message, message


def test_a_histogram_wants_a_state_and_no_reduction():
    for state in (None, 4096):
        with pytest.raises(TypeError, match="state is of type"):
            tare.torch.ghm_histogram("ghm-c", X, Y, state=state)
    with pytest.raises(ValueError, match="no reduction"):
        tare.torch.ghm_histogram("ghm-c", X, Y, state=tare.torch.ghm_state(30), reduction="sum")


def test_a_state_of_two_axes_is_none_whatever_it_holds():
    for value in (0, -1):
        state = torch.full((2, 46), value)
        refused(ValueError, "state must be a contiguous int64 tensor of one axis", name="ghm-c", state=state)
        with pytest.raises(ValueError, match="of one axis"):
            tare.torch.ghm_density("ghm-c", state)


def test_a_device_that_tare_does_not_know():
    with pytest.raises(ValueError, match="tensors are on meta"):
        tare.torch.ghm_density("ghm-c", tare.torch.ghm_state(30, "meta"))


def test_a_head_without_features():
    head = tare.torch.Head(torch.empty(len(Y), 0), torch.empty(4, 0))
    with pytest.raises(ValueError, match=r"features \(\d+, 0\).*D at least 1"):
        tare.torch.sigmoid_focal(head, Y)


def test_more_threads_than_a_context_has():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1500)
        assert torch.equal(loss(), loss())
    finally:
        torch.set_num_threads(threads)
