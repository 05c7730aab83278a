# SPDX-License-Identifier: Apache-2.0
"""tare.evaluate takes no argument on trust: what would wrap, be cut, be dereferenced or be written is refused."""

import decimal
import fractions

import numpy as np
import pytest

import tare

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 3, -1, 0])


def evaluate(loss="sigmoid-focal", logits=X, labels=Y, **options):
    return tare.evaluate(loss, logits, labels, **options)


def refused(error, text, **options):
    with pytest.raises(error, match=text):
        evaluate(**options)
    with pytest.raises(ValueError):  # whatever else it is
        evaluate(**options)


INTEGERS = ["threads", "first_label", "background_label", "ignore_label", "classes", "bins"]


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [3.0, 3.5, True, "3", b"3", 3j, np.float64(3), np.bool_(True), [3], np.array([3, 4])])
def test_an_integer_is_one(name, value):
    loss = "ghm-c" if name == "bins" else "sigmoid-focal"
    refused(TypeError, f"{name} is .*must be an integer", loss=loss, **{name: value})


@pytest.mark.parametrize(
    "options, text",
    [
        ({"threads": 2**40}, r"threads is 1099511627776; it must be in 0\.\.1024"),
        ({"threads": -1}, "threads is -1"),
        ({"threads": 1025}, "threads is 1025"),
        ({"first_label": 2**70}, "first_label is 1180591620717411303424"),
        ({"first_label": 2**64}, "first_label is"),
        ({"background_label": -(2**63) - 1}, "background_label is"),
        ({"ignore_label": 2**63}, "ignore_label is"),
        ({"ignore_label": 2**64 - 2}, "ignore_label is"),
        ({"loss": "ghm-c", "bins": 2**33 + 30}, r"bins is 8589934622; it must be in 1\.\.1024"),
        ({"loss": "ghm-c", "bins": 2**32 + 30}, "bins is"),
        ({"loss": "ghm-c", "bins": -(2**32) + 30}, "bins is"),
        ({"loss": "ghm-c", "bins": 0}, "bins is 0"),
        ({"loss": "ghm-c", "bins": 1025}, "bins is 1025"),
        ({"classes": 2**32 + 4}, "classes is 4294967300"),
        ({"classes": 0}, "classes is 0"),
    ],
)
def test_an_integer_fits(options, text):
    refused(ValueError, text, **options)


def test_numpys_integers_are_integers():
    plain = evaluate(first_label=0, background_label=-1, ignore_label=-2, threads=1)
    other = evaluate(
        first_label=np.int8(0), background_label=np.int64(-1), ignore_label=np.array(-2), threads=np.uint16(1)
    )
    assert plain.loss == other.loss
    assert evaluate("ghm-c", bins=np.int32(7)).loss == evaluate("ghm-c", bins=7).loss
    assert evaluate("ghm-c", bins=np.int32(7)).loss != evaluate("ghm-c").loss


@pytest.mark.parametrize("name", ["gamma", "alpha", "background_weight", "gradient_scale", "normalizer"])
def test_a_number_is_finite_and_real(name):
    for value in (np.nan, np.inf, -np.inf, np.float32("nan"), 10**400):
        refused(ValueError, f"{name} is .*; it must be finite", **{name: value})
    for value in (True, np.bool_(False), 1 + 2j, np.complex64(1), b"1", np.timedelta64(5, "s"), object()):
        refused(TypeError, f"{name} is .*; it must be a number", **{name: value})
    if name not in ("alpha", "normalizer"):
        refused(TypeError, "must be a number", **{name: "1"})
    if name != "alpha":
        refused(TypeError, f"{name} is .*; it must be a number", **{name: np.ones(3)})
        refused(TypeError, f"{name} is None; it must be a number", **{name: None})

    class Half(float):
        def __repr__(self):
            return "no number"

    expected = evaluate(**{name: 0.5})
    half = (
        np.float32(0.5),
        np.array(0.5),
        np.float16(0.5),
        Half(0.5),
        fractions.Fraction(1, 2),
        decimal.Decimal("0.5"),
    )
    for value in half:
        found = evaluate(**{name: value})
        assert found.loss == expected.loss and np.array_equal(found.gradient, expected.gradient)


@pytest.mark.parametrize(
    "name", ["x\0y", "sigmoid-focal\0", "", "focal", "sigmoid focal", None, b"sigmoid-ce", 1, ["x"]]
)
def test_the_name_of_a_loss(name):
    refused(ValueError, "there is no loss .*; there are: sigmoid-ce, sigmoid-focal", loss=name)


@pytest.mark.parametrize("name", ["mean", "sum\0", "SUM", "", b"sum", [1.0]])
def test_the_name_of_a_normalizer(name):
    refused(ValueError, "normalizer is", normalizer=name)


def test_words_of_ghm():
    for key, words in (("density", "unit-region, exact"), ("variant", "paper, mmdet")):
        for value in ("nonsense", "exact\0", None, 2, -1, 2**32, 1.0, True):
            refused(ValueError, f"{key} is .*; it is one of: {words}", loss="ghm-c", **{key: value})
    for value in (2, -1, 2**32, 0.0, "yes", None):
        refused(TypeError, "use_stored_density is .*; it must be True or False", loss="ghm-c", use_stored_density=value)


def test_flags():
    for name in ("gradient", "row_loss", "element_loss"):
        for value in (np.empty_like(X), "no", None, 2, [], 1.0):
            refused(TypeError, f"{name} is .*; it must be True or False", **{name: value})
    assert evaluate(gradient=np.bool_(False)).gradient is None


def test_no_integer_becomes_a_pointer():
    for value in (4096, 2**40, -8, 0, True, "x", None):
        with pytest.raises(ValueError):
            evaluate(alpha_per_class=value) if value is not None else evaluate(state=4096, loss="ghm-c")
    refused(TypeError, "state must be a contiguous int64 array", loss="ghm-c", state=4096)
    refused(ValueError, r"alpha_per_class has shape \(3,\); it must be \[4\]", alpha_per_class=np.ones(3))
    alpha = np.float32([0.1, 0.2, 0.3, 0.4])
    found = evaluate(alpha_per_class=alpha.astype(float)[::1])
    assert found.loss == evaluate(alpha=alpha).loss == evaluate(alpha=list(alpha)).loss != evaluate().loss
    assert evaluate(alpha=0.3, alpha_per_class=None).loss == evaluate(alpha=0.3).loss
    for both in (0.3, alpha):
        refused(ValueError, "alpha and alpha_per_class are two names", alpha=both, alpha_per_class=alpha)
    wide = np.zeros((4, 2), np.float32)
    wide[:, 0] = alpha
    assert evaluate(alpha_per_class=wide[:, 0]).loss == found.loss
    for key in ("class_weights_pointer", "levels", "reserved", "kind"):
        refused(TypeError, f"has no parameter '{key}'; it has: alpha", **{key: 4096})


def test_a_state_is_written_only_where_it_may_be(tmp_path):
    size = 2 + 3 * 8
    contents = bytes(8 * size)
    state = np.frombuffer(contents, np.int64)
    refused(ValueError, "state is read-only", loss="ghm-c", bins=8, momentum=0.5, state=state)
    assert contents == bytes(8 * size)
    file = tmp_path / "state"
    file.write_bytes(contents)
    refused(ValueError, "state is read-only", loss="ghm-c", bins=8, state=np.memmap(file, np.int64, "r"))
    written = np.memmap(file, np.int64, "r+")
    evaluate("ghm-c", bins=8, momentum=0.5, state=written)
    assert written[0] == 1
    frozen = np.array(written)
    frozen.flags.writeable = False
    evaluate("ghm-c", bins=8, use_stored_density=True, state=frozen)  # read, not written
    refused(TypeError, "state must be", loss="ghm-c", bins=8, state=list(range(size)))
    refused(TypeError, "state must be", loss="ghm-c", bins=8, state=np.ma.zeros(size, np.int64))
    refused(TypeError, "state must be", loss="ghm-c", bins=8, state=np.zeros(size, ">i8"))
    refused(TypeError, "state must be", loss="ghm-c", bins=8, state=np.zeros(size, np.float64))
    refused(TypeError, "state must be", loss="ghm-c", bins=8, state=np.zeros(2 * size, np.int64)[::2])
    refused(ValueError, "state has shape", loss="ghm-c", bins=8, state=np.zeros((1, size), np.int64))
    refused(ValueError, "state has shape", loss="ghm-c", bins=8, state=np.zeros(size + 1, np.int64))
    loose = np.frombuffer(bytearray(8 * size + 4), np.uint8)[4:].view(np.int64)
    if not loose.flags.aligned:
        refused(ValueError, "not aligned", loss="ghm-c", bins=8, state=loose)
    refused(TypeError, "sigmoid-focal has no parameter 'state'", state=np.zeros(size, np.int64))


def test_a_state_shares_no_memory():
    state = tare.ghm_state(8)
    labels = state[:6]
    refused(ValueError, "state shares memory", loss="ghm-c", labels=labels, bins=8, state=state)
    logits = state[2:].view(np.float64).reshape(6, 4)
    refused(ValueError, "state shares memory", loss="ghm-c", logits=logits, bins=8, state=state)


@pytest.mark.parametrize("momentum, variant", [(0.0, "paper"), (0.75, "paper"), (0.75, "mmdet")])
def test_a_state_that_tare_did_not_write_is_refused(momentum, variant):
    states = [tare.ghm_state(8) for _ in range(2)]
    options = {"loss": "ghm-c", "bins": 8, "momentum": momentum, "variant": variant}
    for i, state in enumerate(states):
        for step in range(3):
            evaluate(logits=X * (i + 1) + 0.3 * step, state=state, **options)
    options["momentum"] = 0.75
    evaluate(state=states[0].copy(), **options)
    average = ((states[0] + states[1].astype(float)) / 2).astype(np.int64)
    negative, nan, infinite, random = (states[0].copy() for _ in range(4))
    negative[3] = -1
    nan[2 + 8 :].view(np.float64)[2] = np.nan
    infinite[2 + 8 :].view(np.float64)[:] = np.inf
    random[:] = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, len(random))
    scaled = states[0] * 3 // 4
    orphan = states[0].copy()
    orphan[2 + 8 : 2 + 16][states[0][2 + 8 : 2 + 16] != 0] = 0
    for state in (
        average,
        scaled,
        orphan,
        negative,
        nan,
        infinite,
        random,
        np.full(26, 2**62),
        states[0].astype(np.float32),
    ):
        refused(ValueError, "state", state=state, **options)


def test_a_sum_of_an_empty_bin_may_become_as_small_as_it_likes():
    state = tare.ghm_state(4)
    evaluate("ghm-c", bins=4, momentum=0.05, state=state)
    for _ in range(260):  # 0.05^260 is below the least double
        evaluate("ghm-c", np.full((6, 4), 9, np.float32), np.zeros(6, np.int64), bins=4, momentum=0.05, state=state)


def test_masks_are_not_lost():
    masked = lambda array: np.ma.array(array, mask=np.zeros(np.shape(array), bool))
    ones, four = np.ones((6, 4)), np.ones(4)
    cases = {
        "logits": X,
        "labels": Y,
        "targets": ones,
        "row_weights": np.ones(6),
        "element_weights": ones,
        "class_weights": four,
        "positive_weights": four,
        "alpha": four / 2,
        "alpha_per_class": four / 2,
    }
    for name, array in cases.items():
        refused(TypeError, f"{name} is a masked array", **{name: masked(array)})
        refused(ValueError, "masked|shape|levels", **{name: [masked(one) for one in array]})
    with pytest.raises(TypeError, match="labels is a masked array"):
        evaluate(logits=[X, X], labels=[Y, masked(Y)])
    with pytest.raises(ValueError, match="counts is a masked array"):
        tare.class_balanced_weights(masked(np.array([1, 2])))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "U4", "S4", "O", "M8[s]", "m8[s]", [("a", "f4")]])
def test_a_type_that_is_no_number(dtype):
    def cast(array):
        array = np.asarray(array)
        if dtype == [("a", "f4")]:
            return np.zeros(array.shape, dtype)
        return (array.astype(np.int64) if str(dtype).startswith("M") else array).astype(dtype)

    ones, four = np.ones((6, 4)), np.ones(4)
    for name, array in {"logits": X, "labels": Y, "targets": ones}.items():
        refused(ValueError, f"{name} are .*; they must be one of", **{name: cast(array)})
    weights = {"row_weights": np.ones(6), "element_weights": ones, "class_weights": four, "positive_weights": four}
    for name, array in {**weights, "alpha": four / 2}.items():
        refused(TypeError, f"{name} are .*; they must be real numbers", **{name: cast(array)})


def test_weights_of_other_types_keep_their_values():
    mask = np.array([1, 0, 1, 1, 0, 1])
    expected = evaluate(row_weights=mask.astype(np.float32)).loss
    for dtype in (bool, np.uint8, np.int64, np.float16, np.float64, ">f4", np.longdouble):
        assert evaluate(row_weights=mask.astype(dtype)).loss == expected
    refused(ValueError, "row_weights hold 1e.300, which is not finite in float32", row_weights=[1e300] * 6)


def test_what_is_no_array():
    refused(ValueError, "labels and targets are None", labels=None)
    refused(ValueError, "logits is an empty list", logits=[])
    refused(ValueError, "row_weights", row_weights=[[1, 2], [3]])
    refused(ValueError, "row_weights", row_weights={"a": 1})
    refused(ValueError, "labels", labels="abc")


def test_arrays_that_are_not_aligned():
    for name, array in (("logits", X), ("labels", Y)):
        bytes_ = np.zeros(array.nbytes + 1, np.uint8)
        loose = bytes_[1:].view(array.dtype).reshape(array.shape)
        loose[...] = array
        refused(ValueError, "not aligned", **{name: loose})
    one = np.lib.stride_tricks.as_strided(X, (1, 4), (7, 4))  # a step that nobody takes
    assert evaluate(logits=one, labels=Y[:1]).loss == evaluate(logits=X[:1], labels=Y[:1]).loss


def test_messages_speak_of_pythons_arguments():
    cases = [
        ({"gamma": -1}, "gamma is -1; it must be in [0,10000]"),
        ({"alpha": 2}, "alpha is 2; it must be in [0,1]"),
        ({"normalizer": 0}, "normalizer is 0; it must be finite and not 0"),
        ({"background_weight": -1}, "background_weight is -1; it must be in [0,1e30]"),
        ({"ignore_label": -1}, "ignore_label is -1; it must differ from background_label"),
        ({"loss": "softmax-ce", "labels": np.abs(Y), "alpha": 0.3}, "softmax-ce has no alpha"),
        ({"loss": "ghm-c", "momentum": 0.5}, "momentum is 0.5 and state is None; it needs a state, from ghm_state(30)"),
        ({"loss": "ghm-c", "use_stored_density": True}, "use_stored_density is True and state is None"),
        ({"loss": "ghm-c", "momentum": 1.0}, "momentum is 1; it must be in [0,1)"),
        ({"loss": "ghm-c", "density": "exact", "variant": "mmdet"}, "density is 'exact' with use_stored_density 0"),
        ({"loss": "ghm-c", "density": "exact", "epsilon": 0.0}, "epsilon is 0; it must be in (0,2]"),
        ({"loss": "ghm-r"}, "targets is None; ghm-r needs targets"),
        ({"loss": "ghm-r", "mu": 0}, "mu is 0"),
        ({"loss": "sigmoid-poly1", "epsilon": np.inf}, "epsilon is inf"),
        ({"labels": Y + 9}, "label of row 0 is 9"),
        ({"loss": "softmax-ce", "element_weights": X}, "softmax-ce"),
        ({"loss": "ghm-c", "normalizer": "rows"}, "ghm-c"),
        ({"loss": "softmax-ce", "element_loss": True}, "softmax-ce"),
        ({"loss": "ghm-c", "class_weights": np.ones(4)}, "ghm-c"),
    ]
    for options, text in cases:
        with pytest.raises(ValueError) as caught:
            evaluate(**options)
        message = str(caught.value).split(" (TARE_")[0]
        assert text in message
        for word in ("->", "NULL", "TARE_", "tare_", "0x", "(nil)", "-1 and", "struct"):
            assert word not in message, message


def test_companions():
    for bins in (3.0, True, "3", 2**32 + 3, 2**33 + 30, -(2**32) + 3, 0, 1025, None):
        with pytest.raises(ValueError, match="bins is"):
            tare.ghm_state(bins)
    assert len(tare.ghm_state(np.int64(3))) == 11
    for call, name in (
        (lambda n: tare.effective_number(n, 0.9), "n"),
        (tare.beta_from_volume, "volume"),
        (lambda beta: tare.effective_number(3, beta), "beta"),
        (lambda beta: tare.class_balanced_weights([1, 2], beta), "beta"),
    ):
        for value in (np.nan, "3", None, 1j, True, -1.0):
            with pytest.raises(ValueError, match=f"^{name} is"):
                call(value)
    assert tare.effective_number(np.float32(3), np.float32(0.5)) == tare.effective_number(3, 0.5)
    assert tare.effective_number(np.inf, 0.5) == 2


def test_a_state_of_garbage_is_refused_whatever_numpy_makes_of_an_overflow():
    with np.errstate(all="raise"):
        refused(ValueError, "state holds", loss="ghm-c", state=np.full(92, 1e300).view(np.int64))
