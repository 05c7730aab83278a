# SPDX-License-Identifier: Apache-2.0
"""The code blocks of the README and of the pages in docs/guide are true.

python   the blocks of a page run one after another, in one namespace
diff     the lines of the new version run in it too
text     behind one of these: what it prints. A number may differ by a thousandth, ... stands for anything
c        a part of a program in examples/, or of what tests/install builds
console  a line after $ runs in a shell, with the built tool and examples as commands; the rest is what it prints.
         Left out if the tool was not built
sh       builds and installs, and is not run: the verbs of ./dev and the presets it names exist
cmake    a part of tests/install
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import tare

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
RUN = ("python", "diff", "console")
CHECKED = ("c", "sh", "cmake")


def blocks_of(page):
    """Language and text of each block. A directive of the site begins with { and is not code."""
    return [(match[1], match[2]) for match in FENCE.finditer(page.read_text()) if not match[1].startswith("{")]


def same_word(expected, found):
    if expected == found:
        return True
    return NUMBER.sub("0", expected) == NUMBER.sub("0", found) and all(
        float(one.replace(",", "")) == pytest.approx(float(other.replace(",", "")), rel=1e-3)
        for one, other in zip(NUMBER.findall(expected), NUMBER.findall(found))
    )


def same_line(expected, found):
    expected, found = expected.split(), found.split()
    if "..." in expected:
        place = expected.index("...")
        expected, found = expected[:place], found[:place]
    return len(expected) == len(found) and all(map(same_word, expected, found))


def expect_output(expected, found):
    """Every expected line, in this order; other lines may stand between them where one is ..."""
    rest, anywhere = [line for line in found.splitlines() if line.strip()], False
    for line in filter(str.strip, expected.splitlines()):
        if line.strip() == "...":
            anywhere = True
            continue
        while anywhere and rest and not same_line(line, rest[0]):
            rest.pop(0)
        assert rest and same_line(line, rest[0]), f"the page says\n  {line}\nand this was printed:\n{found}"
        rest.pop(0)
        anywhere = False
    assert anywhere or not rest, f"the page does not say\n{rest}"


def new_version(diff):
    return "".join(line[1:] for line in diff.splitlines(keepends=True) if not line.startswith("-"))


def squeezed(code):
    return textwrap.dedent(code).strip("\n")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own, the built programs as commands, and a stand-in for torchvision, which is not installed."""

    def original():
        raise AssertionError

    binaries = Path(os.environ["TARE_LIBRARY"]).parent / "bin"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.focal_loss"):
        module = types.ModuleType(name)
        module.__path__, module.sigmoid_focal_loss = [], original
        monkeypatch.setitem(sys.modules, name, module)


def run_python(code, names):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), names)
    return printed.getvalue()


def run_console(block):
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        command = command.replace("./dev tare", "tare").replace("build/bin/", "")
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        expect_output(expected, done.stdout + done.stderr)


@pytest.mark.parametrize("page", [page for page in PAGES if any(lang in RUN for lang, _ in blocks_of(page))], ids=str)
def test_what_runs(page, monkeypatch):
    module, printed = types.ModuleType("page"), ""
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where Dynamo of PyTorch 2.4 looks for its functions
    names = vars(module)
    for language, text in blocks_of(page):
        if language in ("python", "diff"):
            assert not printed, f"{page}: a text block says what a block prints; nothing says this: {printed}"
            printed = run_python(text if language == "python" else new_version(text), names)
        elif language == "text" and printed:
            expect_output(text, printed)
            printed = ""
        elif language == "console" and shutil.which("tare"):
            run_console(text)


def test_what_is_shown():
    examples = [squeezed(one.read_text()) for one in (ROOT / "examples").glob("*.c")]
    examples.append((ROOT / "tests" / "install" / "main.c").read_text())
    dev, cmake = (ROOT / "dev").read_text(), (ROOT / "tests" / "install" / "CMakeLists.txt").read_text()
    presets = {one["name"] for one in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]}
    for page in PAGES:
        for language, text in blocks_of(page):
            where = f"{page.relative_to(ROOT)}:\n{text}"
            assert language in (*RUN, *CHECKED, "text", "json", "mermaid"), where
            if language == "c":
                indented = {depth: textwrap.indent(squeezed(text), " " * depth) for depth in (0, 2, 4)}
                assert any(one in example for one in indented.values() for example in examples), where
            if language == "cmake":
                assert set(re.findall(r"find_package\(.*?\)", text)) <= set(
                    re.findall(r"find_package\(.*?\)", cmake)
                ), where
            if language == "sh":
                assert {f"./dev {verb}" in dev for verb in re.findall(r"\./dev (\w+)", text)} <= {True}, where
                assert set(re.findall(r"--preset (\S+)", text)) <= presets, where


def rows_of_losses(section):
    """The rows of a section's table, by the name in their first cell."""
    text = (ROOT / "docs" / "guide" / "losses.md").read_text()
    table = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {cells[0].strip("| `"): cells for cells in rows}


def test_the_page_of_losses_has_a_row_for_every_loss():
    rows = rows_of_losses("Formulas and papers")
    assert [name for name in tare.losses() if name not in rows] == []


OTHER_ROWS = {  # a module that is no loss of tare.losses(), and its row in the table of all losses
    "ClassBalancedLoss": "class-balanced",
    "DiceLoss": "dice_loss",
    "FocalDiceLoss": "focal_dice_loss",
    "GHMC": "ghm-c",
    "GHMR": "ghm-r",
    "LDAMLoss": "softmax-ldam",
    "LogitAdjustedLoss": "softmax-logit-adjusted",
    "RunningClassBalancedLoss": "class-balanced",
    "SeesawLoss": "softmax-seesaw",
    "TverskyLoss": "tversky_loss",
}


def test_the_table_of_all_losses_has_every_loss():
    nn = pytest.importorskip("tare.torch").nn
    found = rows_of_losses("What each needs and costs")
    modules = [name for name, one in vars(nn).items() if isinstance(one, type) and issubclass(one, nn.torch.nn.Module)]
    named = {one.__name__ for one in nn.Loss.__subclasses__() if hasattr(one, "name")}
    modules = [
        one for one in modules if not one.startswith("_") and one not in {*named, "Loss", "Module", "StateModule"}
    ]
    wanted = [*tare.losses(), *(OTHER_ROWS.get(one, one) for one in modules), "hard_negatives", "hard_rows"]
    missing = sorted({one for one in wanted if one not in found})
    assert not missing, (
        f"losses.md, what each needs and costs, has no row for: {', '.join(missing)}. Add one: shape, needs, cost "
        "beside focal loss (bench/costs.py), who uses it, the reference and its faults. A module of another row goes "
        "into OTHER_ROWS."
    )
    for name, cells in found.items():
        cpu, gpu = cells[3], cells[4]
        assert len(cells) == 7 and all(one.strip(" |") for one in cells), f"row {name} needs seven cells"
        assert re.fullmatch(r"\d+\.\d|not measured", cpu), f"CPU of {name} is '{cpu}': a number, or 'not measured'"
        assert re.fullmatch(r"\d+\.\d predicted|\d+\.\d|not yet counted", gpu), (
            f"GPU of {name} is '{gpu}': a number, '1.0 predicted' (bench/slots/predict.py), or 'not yet counted'"
        )


def test_the_reference_has_every_module_and_library():
    """Sphinx finds what nn.py and tare.torch.__init__ define; the page names what nn takes from elsewhere."""
    nn = pytest.importorskip("tare.torch").nn
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    modules = [name for name, one in vars(nn).items() if isinstance(one, type) and issubclass(one, nn.torch.nn.Module)]
    found = [name for name in modules if vars(nn)[name].__module__ == nn.__name__ or name in tare.torch.__all__]
    found += re.findall(r"autoclass:: tare\.torch\.nn\.(\w+)", page)
    assert sorted(set(modules) - {"Module", "StateModule", *found}) == []
    compat = {one.stem for one in (ROOT / "python" / "tare" / "compat").iterdir() if not one.name.startswith("_")}
    assert sorted(one for one in compat if f".. automodule:: tare.compat.{one}\n" not in page) == []


def test_links_lead_to_files():
    pages = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:\s]+)[^):]*\)", FENCE.sub("", page.read_text()))
        if not (page.parent / link).exists()
    ]
    assert not missing
