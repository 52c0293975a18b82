"""The direction of imports, read off the source: nodes -> pipelines -> verbs -> nouns."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOUNS = {
    "camera", "bundle_image", "mesh", "gaussian_cloud", "triplane", "semantic_field", "progress",
    "_checks",
}  # fmt: skip
# Lower numbers know nothing of higher ones.
LEVELS = {
    "backends": 1,
    "configs": 1,
    "geometry": 2,
    "formats": 3,
    "rendering": 3,
    "networks": 3,
    "diffusion": 4,
    "evaluation": 4,
    "datasets": 4,
    "pipelines": 5,
    "training": 6,
    "health": 6,
}
HEAVY = {
    "numba", "scipy", "trimesh", "xatlas", "omegaconf", "PIL", "diffusers", "peft", "gsplat",
    "nvdiffrast", "fast_simplification", "skimage", "transformers", "matplotlib", "open3d",
}  # fmt: skip
HOST = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "folder_paths",
    "server",
    "latent_preview",
}


def _sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def _imports(path: Path) -> list[tuple[ast.stmt, str, bool]]:
    """All imports as (statement, absolute dotted name, at module level)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in _module_level(tree)}
    package = path.relative_to(ROOT).parts[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package[: len(package) - node.level + 1]
                base = ".".join(("lift3d", *parent, *filter(None, [node.module])))
            found += [(node, f"{base}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def _module_level(tree: ast.Module) -> list[ast.stmt]:
    nodes: list[ast.stmt] = []
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes.append(node)
        for name in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                pending += getattr(node, name, [])
    return nodes


def _core_place(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[2] if parts[:2] == ["lift3d", "core"] and len(parts) > 2 else None


def _level(place: str) -> int:
    if place in NOUNS:
        return 0
    assert place in LEVELS, f"core/{place} has no level yet: decide where it belongs"
    return LEVELS[place]


@pytest.mark.parametrize("path", _sources("core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_imports_point_downwards(path: Path) -> None:
    parts = path.relative_to(ROOT / "core").parts
    if parts == ("__init__.py",):
        return
    own = parts[0].removesuffix(".py")
    for node, name, _ in _imports(path):
        if name.startswith("lift3d") and not name.startswith("lift3d.core"):
            pytest.fail(f"line {node.lineno}: core must not know {name}")
        place = _core_place(name)
        if place is None:
            continue
        same_file_group = place == own
        assert (
            same_file_group or _level(place) < _level(own) or _level(place) == _level(own) == 0
        ), f"line {node.lineno}: {own} (level {_level(own)}) imports {name} (level {_level(place)})"


@pytest.mark.parametrize(
    "path",
    [*_sources("core"), *_sources("nodes"), ROOT / "__init__.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_heavy_is_imported_at_module_level(path: Path) -> None:
    if "numba_cpu" in path.parts:
        return  # the kernels themselves: imported only by the functions that run them
    for node, name, at_top in _imports(path):
        assert not (at_top and name.split(".")[0] in HEAVY), f"line {node.lineno}: {name}"


def test_numba_kernels_are_only_imported_inside_functions() -> None:
    for path in _sources("core"):
        if "numba_cpu" in path.parts:
            continue
        for node, name, at_top in _imports(path):
            kernels = ".numba_cpu." in f"{name}." and not name.endswith("numba_cpu.runtime")
            assert not (at_top and kernels), f"{path}:{node.lineno}: {name}"


@pytest.mark.parametrize("path", _sources("core"), ids=lambda path: str(path.relative_to(ROOT)))
def test_core_never_names_the_host(path: Path) -> None:
    for node, name, _ in _imports(path):
        assert name.split(".")[0] not in HOST, f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", _sources("nodes"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_host_py_and_the_native_files_name_the_host(path: Path) -> None:
    if path.name == "host.py" or path.name.startswith("native_"):
        return
    for node, name, _ in _imports(path):
        assert name.split(".")[0] not in HOST, f"line {node.lineno}: {name} belongs into host.py"


@pytest.mark.parametrize(
    "path",
    [*_sources("core"), *_sources("nodes"), *_sources("standalone")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_imports_of_our_own_modules_are_relative(path: Path) -> None:
    own = {"core", "nodes", "standalone", "lift3d"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert (node.module or "").split(".")[0] not in own, f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & own, (
                f"line {node.lineno}"
            )


def test_module_import_graph_of_core_has_no_cycles() -> None:
    edges: dict[str, set[str]] = {}
    modules = {}
    for path in _sources("core"):
        dotted = ".".join(("lift3d", *path.relative_to(ROOT).with_suffix("").parts))
        modules[dotted.removesuffix(".__init__")] = path
    for dotted, path in modules.items():
        targets = set()
        for _, name, at_top in _imports(path):
            if at_top:
                targets |= {name, name.rpartition(".")[0]} & set(modules)
        edges[dotted] = targets - {dotted}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in sorted(edges[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(edges):
        visit(module, ())


def test_library_imports_without_heavy_modules() -> None:
    """Importing every noun and public entry leaves the heavy libraries unloaded."""
    import subprocess

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import run; run.register_package();"
        "import lift3d.core.mesh, lift3d.core.camera, lift3d.core.gaussian_cloud,"
        " lift3d.core.bundle_image, lift3d.core.backends.probe;"
        "print(','.join(sorted(set(sys.modules) & set(sys.argv[2].split(',')))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), ",".join(HEAVY)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == ""
