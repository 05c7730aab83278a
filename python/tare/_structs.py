# SPDX-License-Identifier: Apache-2.0
"""The structs of include/tare.h for ctypes. The fields have the names of the header, which is their manual."""

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_double, c_int32, c_int64, c_uint64, c_void_p


class ContextOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("device", c_int32),
        ("device_index", c_int32),
        ("threads", c_int32),
        ("reserved", c_int32),
    ]


class ContextDescription(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("device", c_int32),
        ("device_index", c_int32),
        ("threads", c_int32),
        ("reserved", c_int32),
        ("device_name", c_char * 128),
        ("instruction_set", c_char * 32),
        ("reason", c_char * 256),
    ]


class Loss(ctypes.Structure):
    """tare_loss_spec. tare_loss_parameter gives the offsets of its parameters."""

    _fields_ = [
        ("struct_size", c_uint64),
        ("kind", c_int32),
        ("reserved", c_int32),
        ("reserved_words", c_uint64 * 16),
    ]


class LossDescription(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("name", c_char_p),
        *[
            (name, c_int32)
            for name in (
                "kind",
                "family",
                "parameters",
                "has_state",
                "takes_targets",
                "takes_class_weights",
                "takes_element_weights",
                "takes_positive_weights",
                "takes_normalizer",
                "gives_element_loss",
                "takes_scores",
                "takes_negative_weights",
                "takes_bins",
                "reserved",
            )
        ],
    ]


class ParameterDescription(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        *[(name, c_char_p) for name in ("name", "option", "field", "help", "limits")],
        ("choices", POINTER(c_char_p)),
        ("type", c_int32),
        ("offset", c_int32),
        *[(name, c_double) for name in ("low", "high", "default_value")],
        *[(name, c_int32) for name in ("low_is_excluded", "high_is_excluded", "negative_is_off", "reserved")],
    ]


class Strides(ctypes.Structure):
    _fields_ = [(axis, c_int64) for axis in ("image", "y", "x", "anchor", "cls")]


LEVEL_ARRAYS = (
    "logits",
    "gradient",
    "labels",
    "targets",
    "row_weights",
    "element_weights",
    "row_loss",
    "element_loss",
    "scores",
)


class Level(ctypes.Structure):
    _fields_ = [
        *((length, c_int64) for length in ("height", "width", "anchors")),
        *(field for array in LEVEL_ARRAYS for field in ((array, c_void_p), (array + "_strides", Strides))),
        ("loss", c_void_p),
        *[(name, c_double) for name in ("loss_weight", "divisor")],
        ("divisor_pointer", c_void_p),
    ]


class Batch(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("level_stride", c_uint64),
        ("levels", POINTER(Level)),
        ("level_count", c_int32),
        ("dtype", c_int32),
        ("label_dtype", c_int32),
        ("target_dtype", c_int32),
        ("images", c_int64),
        ("classes", c_int64),
        ("first_label", c_int64),
        ("background_label", c_int64),
        ("ignore_label", c_int64),
        ("class_weights", c_void_p),
        ("background_weight", c_double),
        ("positive_weights", c_void_p),
        ("score_dtype", c_int32),
        ("selection", c_int32),
        ("selection_ratio", c_double),
        ("selection_minimum", c_int64),
        ("selection_count", c_int64),
        ("selection_fraction", c_double),
        ("negative_weights", c_void_p),
        ("background_negative_weights", c_void_p),
        ("class_mask", c_void_p),
        ("class_mask_image_stride", c_int64),
        ("class_mask_class_stride", c_int64),
    ]


class Counts(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in ("rows", "counted", "positives", "background", "ignored", "invalid")]


class ClassSums(ctypes.Structure):
    _fields_ = [(name, c_double) for name in ("loss", "positive_gradient", "negative_gradient", "count")]


NORMALIZER_SUMS = ("elements", "rows", "positives", "weights", "targets", "ones")


class NormalizerSums(ctypes.Structure):
    _fields_ = [*[(name, c_double) for name in NORMALIZER_SUMS], ("reserved", c_double * 2)]


class Output(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("loss", c_void_p),
        ("loss_dtype", c_int32),
        ("normalizer", c_int32),
        ("normalizer_value", c_double),
        ("normalizer_pointer", c_void_p),
        ("gradient_scale", c_double),
        ("gradient_scale_pointer", c_void_p),
        ("counts", c_void_p),
        ("class_sums", c_void_p),
        ("nonfinite_gradient", c_void_p),
        ("nonfinite_loss", c_void_p),
        *[(name, c_double) for name in ("normalizer_addend", "normalizer_minimum")],
        ("normalizer_sums", c_void_p),
        *[(name, c_int32) for name in ("normalizer_scope", "norm_bins")],
        ("norm_histogram", c_void_p),
    ]


class ClassBalance(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("classes", c_int64),
        *[(name, c_double) for name in ("beta", "decay", "least_count")],
        ("state", c_void_p),
        ("weights", c_void_p),
        ("log_counts", c_void_p),
    ]


MASK_NUMBERS = (
    "false_positive_weight",
    "false_negative_weight",
    "exponent",
    "numerator_smoothing",
    "denominator_smoothing",
    "overlap_weight",
    "focal_weight",
    "alpha",
    "gamma",
)


class MaskSpec(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        *[(name, c_double) for name in MASK_NUMBERS],
        ("squared", c_int32),
        ("reserved", c_int32),
    ]


class Masks(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        *[(name, c_int64) for name in ("masks", "pixels")],
        ("logits", c_void_p),
        ("logits_stride", c_int64),
        ("targets", c_void_p),
        ("targets_stride", c_int64),
        ("valid", c_void_p),
        ("valid_stride", c_int64),
        ("mask_weights", c_void_p),
        *[(name, c_int32) for name in ("dtype", "target_dtype", "ignore_target", "reserved")],
    ]


class MaskSums(ctypes.Structure):
    _fields_ = [
        *[(name, c_double) for name in ("true_positives", "false_positives", "false_negatives", "focal")],
        *[(name, c_int64) for name in ("pixels", "reserved")],
    ]


class MaskOutput(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        *[(name, c_void_p) for name in ("loss", "overlap_loss", "focal_loss")],
        *[(name, c_int32) for name in ("loss_dtype", "normalizer")],
        ("normalizer_value", c_double),
        ("normalizer_pointer", c_void_p),
        ("gradient_scale", c_double),
        ("gradient_scale_pointer", c_void_p),
        ("gradient", c_void_p),
        ("gradient_stride", c_int64),
        ("mask_loss", c_void_p),
        ("sums", c_void_p),
    ]


class GradientBalance(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("classes", c_int64),
        ("exempt", c_int64),
        ("rule", c_int32),
        ("reserved", c_int32),
        *[(name, c_double) for name in ("steepness", "midpoint", "gain", "gamma", "scale")],
        *[(name, c_void_p) for name in ("state", "positive_weights", "negative_weights", "gammas")],
    ]


class Linear(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint64),
        ("dimensions", c_int64),
        ("dtype", c_int32),
        ("accumulate", c_int32),
        ("features", c_void_p),
        ("features_stride", c_int64),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("features_gradient", c_void_p),
        ("features_gradient_stride", c_int64),
        ("weights_gradient", c_void_p),
        ("bias_gradient", c_void_p),
    ]
