"""Registers the pack as the package `lift3d`, whatever its folder is called, and common fixtures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


sys.path.insert(0, str(ROOT))

# Workers of pytest-xdist keep their compiled kernels apart: numba's index on disk does not expect
# two processes that compile the same function for different types at the same time.
if "PYTEST_XDIST_WORKER" in os.environ:
    kernels = ROOT / ".pytest_cache" / "kernels" / os.environ["PYTEST_XDIST_WORKER"]
    os.environ.setdefault("NUMBA_CACHE_DIR", str(kernels))

import run  # noqa: E402

run.register_package()

import jaxtyping  # noqa: E402

# Shape contracts hold in tests only. The checker sits beside this file, which pytest puts on
# sys.path.
jaxtyping.install_import_hook("lift3d.core", "typechecker.checked")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")
    parser.addoption("--only-slow", action="store_true", help="run nothing but the slow tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow, only_slow = config.getoption("--slow"), config.getoption("--only-slow")
    for item in items:
        is_slow = "slow" in item.keywords
        if is_slow and not (slow or only_slow):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if only_slow and not is_slow:
            item.add_marker(pytest.mark.skip(reason="only slow tests were asked for"))


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switches the shape contracts off, so that a test sees our own errors as users do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def shared_dir() -> Path:
    """The optional folder of specs and goldens beside a developer's checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared, which only the developers' machines have")
    return folder
