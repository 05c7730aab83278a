# SPDX-License-Identifier: Apache-2.0
"""The directive `losses-table`: every loss as the built library describes it. A new loss appears by itself."""

from sphinx.util.docutils import SphinxDirective

from tare import _c, _losses

FAMILIES = ("sigmoid", "softmax", "regression")
WORDS = ("takes_", "gives_", "has_")  # what begins a field of tare_loss_description that is a yes or a no


def takes(found):
    """ "targets, scores, normalizer": the fields that are 1, without their first word."""
    names = [name for name, *_ in found._fields_ if name.startswith(WORDS) and getattr(found, name)]
    return ", ".join(name.split("_", 1)[1].replace("_", " ") for name in names)


def described(kind):
    found = _c.LossDescription()
    found.struct_size = _c.ctypes.sizeof(found)
    _c.check(_c.library.tare_loss_describe(kind, found))
    return found


def choices_of(found):
    words = []
    while found.choices[len(words)]:
        words.append(found.choices[len(words)].decode())
    return words


def parameter(kind, index):
    """One line: `gamma` 2, in [0,10000]: exponent ..."""
    found = _c.ParameterDescription()
    found.struct_size = _c.ctypes.sizeof(found)
    _c.check(_c.library.tare_loss_parameter(kind, index, found))
    text = f"`{found.name.decode()}`"
    if found.type == _losses._PER_CLASS or found.type == _losses._STATE:
        return f"{text}: {found.help.decode()}"
    value = f"{found.default_value:g}"
    if found.choices:
        words = choices_of(found)
        return f"{text} = {words[int(found.default_value)]}, of {' or '.join(words)}: {found.help.decode()}"
    if found.negative_is_off and found.default_value < 0:
        value = "off"
    limits = f", {found.limits.decode()}" if found.limits else ""
    return f"{text} = {value}{limits}: {found.help.decode()}"


def rows():
    yield "| loss | takes and gives | parameters, with default and range |"
    yield "|---|---|---|"
    for name, about in _losses.DESCRIPTIONS.items():
        loss = described(about.kind)
        lines = [parameter(about.kind, index) for index in range(loss.parameters)]
        cells = (f"`{name}`<br>{FAMILIES[loss.family]}", takes(loss), "<br>".join(lines) or "none")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


class LossesTable(SphinxDirective):
    def run(self):
        return self.parse_text_to_nodes("\n".join(rows()))


def setup(app):
    app.add_directive("losses-table", LossesTable)
    return {"parallel_read_safe": True}
