"""The house rules that a machine can hold: import directions, light imports, file sizes, one story a file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gensdk
from gensdk_runtime.spec.kinds import CONDITIONS, OUTPUTS, PROGRAMS

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "gensdk_runtime": ROOT / "runtime" / "gensdk_runtime",
    "gensdk_training": ROOT / "training" / "gensdk_training",
    "gensdk_export": ROOT / "export" / "gensdk_export",
    "gensdk": ROOT / "gensdk",
}
ALLOWED = {
    "gensdk_runtime": {"gensdk_runtime"},
    "gensdk_training": {"gensdk_runtime", "gensdk_training"},
    "gensdk_export": {"gensdk_runtime", "gensdk_training", "gensdk_export"},
    "gensdk": set(PACKAGES),
}
FORBIDDEN_AT_RUNTIME = {"torch", "onnx", "onnxscript", "sklearn", "accelerate", "safetensors"}
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def package_of(path: Path) -> str:
    return next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_keeps_the_rules(path: Path) -> None:
    package, roots = package_of(path), imported_roots(path)
    wrong = (roots & set(PACKAGES)) - ALLOWED[package]
    assert not wrong, f"imports run runtime <- training <- export <- gensdk; this imports {wrong}"
    if package == "gensdk_runtime":
        assert not roots & FORBIDDEN_AT_RUNTIME
    assert path.stem not in NO_NAMES, "a thing is named after what it is"
    assert len(path.read_text().splitlines()) <= 500, "a file over 500 lines is two files"


ROOMS = {
    "gensdk_runtime": """
        version printable errors arguments noise host spec onnx_files backends bundles media text conditions
        outputs samples programs plan receptive_field methods tuning generator proof bench stream
    """,
    "gensdk_training": """
        plan examples running_statistics memory_budget weights_file captions heard family losses networks graphs
        gan_family text_family denoiser_family noise_family pixel_family settings registry data metrics run_config
        evaluation ema randomness replicas optim matched_family stopping run_progress checkpoint diagnosis board
        torch_backend preview trainer loop run distillation families
    """,
    "gensdk_export": """
        isolated_load onnx_check onnx_weights export_report proof receptive_proof rewrites half onnx_export engines
        golden_record gradient_rounding one_call card packing graphs export importers page
    """,
}
"""The rooms of each package and the files at its top, each of which imports only from those before it."""


def rooms_of(package: str) -> dict[str, set[str]]:
    """For each room, or file at the top: the others of its package that it imports, inside functions too."""
    folder, found = PACKAGES[package], {}
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        used = found.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            used |= {name.split(".")[1] for name in names if name.startswith(f"{package}.")}
    rooms = {name: used - {name} for name, used in found.items() if name != "__init__"}
    return {name: used & rooms.keys() for name, used in rooms.items()}


@pytest.mark.parametrize("package", ROOMS)
def test_imports_between_rooms_run_one_way(package: str) -> None:
    order, rooms = ROOMS[package].split(), rooms_of(package)
    assert sorted(order) == sorted(rooms), "a new room has a place in the order"
    upwards = [
        f"{room} imports {other}"
        for room, used in rooms.items()
        for other in sorted(used)
        if order.index(other) > order.index(room)
    ]
    assert not upwards


MODULES = {"onnxruntime", "openvino", "tensorrt", "fake"}
"""The backends; what else lies beside them may be used by each."""


def test_backends_do_not_import_each_other() -> None:
    folder = PACKAGES["gensdk_runtime"] / "backends"
    seen = set()
    for path in folder.rglob("*.py"):
        backend = path.relative_to(folder).parts[0].removesuffix(".py")
        seen.add(backend)
        others = MODULES - {backend} if backend in MODULES else set()
        assert not [other for other in others if f"gensdk_runtime.backends.{other}" in path.read_text()], path
    assert seen > MODULES


def test_importing_the_face_is_light() -> None:
    """No torch, onnx, backend, cv2 nor PIL: an application that imports gensdk pays for what it uses."""
    program = "import sys, gensdk; gensdk.Generator; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "onnx", "onnxruntime", "cv2", "PIL", "av", "onnxscript", "matplotlib", "rich", "sklearn"}
    assert not heavy & set(loaded)


def test_the_face_shows_what_type_checkers_see() -> None:
    source = ast.parse((PACKAGES["gensdk"] / "__init__.py").read_text())
    checked = next(node for node in source.body if isinstance(node, ast.If))
    seen = {node.names[0].name for node in checked.body if isinstance(node, ast.ImportFrom)}
    assert seen | {"__version__"} == set(gensdk.__all__)
    assert all(getattr(gensdk, name) is not None for name in gensdk.__all__)


KNOWING_KINDS = ("conditions", "outputs", "programs", "spec")
"""The rooms of the runtime whose matter the kinds are."""
ELSEWHERE = {
    "runtime/gensdk_runtime/receptive_field/field.py": "looks into graphs that translate images, and no others",
    "runtime/gensdk_runtime/tuning/loading.py": "imports that room where there are such graphs, and not otherwise",
    "training/gensdk_training/family.py": "says of data what they are, for all others to ask",
    "training/gensdk_training/data/feed.py": "deals out pairs of images where data have such",
    "export/gensdk_export/page/page.py": "its scripts run no decoder of latents",
    "export/gensdk_export/page/prompts.py": "its scripts read texts",
    "export/gensdk_export/proof.py": "tries graphs at the sizes of images that they take",
    "export/gensdk_export/receptive_proof.py": "tries what a graph that translates images sees",
    "export/gensdk_export/rewrites/uint8.py": "makes images that go in and come out bytes",
}
"""Where else there is a branch on a kind, and why."""
NEEDING_IMAGES = {
    "runtime/gensdk_runtime/methods/translate.py": "translates images",
    "runtime/gensdk_runtime/stream/pipeline.py": "its frames are images",
    "training/gensdk_training/evaluation/subject.py": "compares samples with images",
    "export/gensdk_export/card.py": "tells how many channels the images have that are translated",
    "export/gensdk_export/page/page.py": "its scripts draw pictures",
    "export/gensdk_export/rewrites/uint8.py": "pixels are bytes",
    "gensdk/cli/detect.py": "reads files of images",
    "gensdk/cli/dream.py": "reads a file of an image",
}
"""What asks for images by name, which other models don't have, and why."""


def names_in(node: ast.AST) -> set[str]:
    """All names and attributes in an expression."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def branches_on_kinds(tree: ast.AST, kinds: set[str]) -> list[int]:
    """The lines that ask of what kind a program, an output, a condition or data are."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            types = names_in(node.args[1])
            if any(name.endswith(("Spec", "Program", "Output", "Condition")) for name in types):
                lines.append(node.lineno)
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            constants = {each.value for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)}
            asks = any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides)
            missing = any(
                isinstance(side, ast.Attribute)
                and side.attr in ("source", "points", "image")
                and names_in(side.value) & {"model", "data", "info"}
                for side in sides
            )
            if (asks and constants & kinds) or (missing and None in constants):
                lines.append(node.lineno)
    return lines


def test_a_branch_on_a_kind_counts() -> None:
    """The counter sees each form of one, and takes nothing else for one."""
    kinds = {"image", "points"}
    for code in (
        "isinstance(model.output, ImageSpec)",
        "isinstance(program, (DiffusionProgram, X))",
        "model.output.kind == 'points'",
        "spec.kind in ('image', 'x')",
        "data.points is None",
        "self.model.source is not None",
    ):
        assert branches_on_kinds(ast.parse(code), kinds) == [1], code
    for code in ("isinstance(x, str)", "array.dtype.kind == 'f'", "question.kind == 'open'", "x.source is None"):
        assert branches_on_kinds(ast.parse(code), kinds) == [], code


def test_kinds_are_asked_of_nowhere_else() -> None:
    """A new kind is a file of its own: nothing branches on kinds but their rooms, and what is named here."""
    kinds = {*PROGRAMS.names, *OUTPUTS.names, *CONDITIONS.names}
    found: dict[str, list[int]] = {}
    asked: set[str] = set()
    for path in FILES:
        where, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        rooms = [f"runtime/gensdk_runtime/{room}/" for room in KNOWING_KINDS]
        if where.startswith(tuple(rooms)):
            continue
        if lines := branches_on_kinds(tree, kinds):
            found[where] = lines
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        if {"image_of", "source_of"} & {call.id for call in calls if isinstance(call, ast.Name)}:
            asked.add(where)
    assert {where: lines for where, lines in found.items() if where not in ELSEWHERE} == {}
    assert sorted(asked) == sorted(NEEDING_IMAGES)
    assert sorted(found) == sorted(ELSEWHERE), "an exception that is none any more"
