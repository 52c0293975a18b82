"""Loads the pack into a real ComfyUI and runs workflows through its executor; writes a report.

Runs in a process of its own: python drive_comfyui.py JOB.json REPORT.json. The job names the
checkout, the pack, a folder to write to and the workflows with their settings. Without a server,
without a window; on the CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import tiny_published

HEAVY = (
    "numba", "trimesh", "scipy", "xatlas", "omegaconf", "diffusers", "gsplat", "nvdiffrast",
    "fast_simplification", "skimage", "matplotlib",
)  # fmt: skip


class FakeServer:
    """What the executor needs of ComfyUI's server; it keeps the events."""

    def __init__(self) -> None:
        self.client_id = "test"
        self.last_node_id = None
        self.last_prompt_id = None
        self.sockets_metadata: dict[str, Any] = {}
        self.events: list[tuple[str, Any]] = []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.events.append((event, data))

    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None:
        self.events.append(("text", text))


def start_comfyui(root: Path, folder: Path) -> FakeServer:
    """Import the core with its folders below ``folder``."""
    sys.path.insert(0, str(root))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths

    for name in ("output", "input", "temp", "user"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
    folder_paths.models_dir = str(folder / "models")
    import utils.extra_config  # noqa: F401  (before `nodes`, which shadows `utils`)
    import utils.install_util  # noqa: F401

    server = FakeServer()
    import server as server_module

    server_module.PromptServer.instance = server
    try:
        from app.node_replace_manager import NodeReplaceManager

        server.node_replace_manager = NodeReplaceManager()
    except ImportError:
        pass  # an older core
    return server


async def load_pack(pack: Path, report: dict[str, Any]) -> str:
    """Load the pack as ComfyUI does, timing it; then the stock nodes."""
    import nodes

    with contextlib.suppress(ImportError):
        import comfy_config.config_parser  # noqa: F401  (ComfyUI's own, with the first pack it loads)
    before, started = set(sys.modules), (time.perf_counter(), time.process_time())
    loaded = await nodes.load_custom_node(str(pack), module_parent="custom_nodes")
    report["import_seconds"] = time.perf_counter() - started[0]
    report["import_cpu_seconds"] = time.process_time() - started[1]
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    report["heavy_modules"] = sorted(new & set(HEAVY))
    report["loaded"] = bool(loaded)
    await nodes.init_public_apis()
    await nodes.init_builtin_extra_nodes()
    return next(name for name in sys.modules if name.endswith("standalone.comfy_api"))


def node_specs(package: str) -> dict[str, Any]:
    """Specs of all registered nodes, from what ComfyUI tells its front end."""
    import nodes

    specs = importlib.import_module(f"{package}.standalone.specs")
    found = {}
    for node_id, cls in nodes.NODE_CLASS_MAPPINGS.items():
        info = {
            "input": cls.INPUT_TYPES(),
            "output": list(getattr(cls, "RETURN_TYPES", ())),
            "output_node": bool(getattr(cls, "OUTPUT_NODE", False)),
            "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(node_id),
        }
        found[node_id] = specs.spec_from_info(node_id, info)
    return found


def make_prompt(package: str, job: dict[str, Any], specs: dict[str, Any]) -> dict[str, Any]:
    """API prompt of a workflow file in the editor's format."""
    files = importlib.import_module(f"{package}.standalone.workflow_file")
    steps = importlib.import_module(f"{package}.standalone.workflow_steps")
    workflow = files.read_workflow(Path(job["workflow"]))
    compiled = steps.compile_steps(
        workflow, specs, settings=job["settings"], check_choice=lambda node_type, name: False
    )
    return {
        step.id: {
            "class_type": step.type,
            "inputs": {**step.values, **{name: list(link) for name, link in step.links.items()}},
        }
        for step in compiled
    }


async def run_prompt(server: FakeServer, name: str, prompt: dict[str, Any]) -> dict[str, Any]:
    """Validate and execute a prompt, and say what came out."""
    import execution

    prompt = copy.deepcopy(prompt)
    valid, error, outputs, node_errors = await execution.validate_prompt(name, prompt, None)
    if not valid:
        return {"valid": False, "error": error, "node_errors": node_errors}
    arguments: dict[str, Any] = {"cache_type": execution.CacheType.CLASSIC}
    import inspect

    if "cache_args" in inspect.signature(execution.PromptExecutor.__init__).parameters:
        arguments["cache_args"] = {"lru": 0, "ram": 0, "ram_inactive": 0}
    executor = execution.PromptExecutor(server, **arguments)
    started = time.perf_counter()
    await executor.execute_async(prompt, name, {"client_id": "test"}, outputs)
    messages = [data for event, data in executor.status_messages if event == "execution_error"]
    return {
        "valid": True,
        "success": bool(executor.success),
        "seconds": time.perf_counter() - started,
        "outputs": executor.history_result.get("outputs", {}),
        "errors": [
            {key: message.get(key) for key in ("node_type", "exception_message", "traceback")}
            for message in messages
        ],
    }


async def drive(job: dict[str, Any]) -> dict[str, Any]:
    """Do the whole job."""
    report: dict[str, Any] = {"runs": {}}
    server = start_comfyui(Path(job["comfyui"]), Path(job["folder"]))
    helper = await load_pack(Path(job["pack"]), report)
    tiny_published.register_published(Path(job["folder"]) / "models")
    package = helper.removesuffix(".standalone.comfy_api")
    import comfy.utils

    import nodes

    steps_seen: list[Any] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, **_: steps_seen.append((value, total, preview is not None))
    )
    specs = node_specs(package)
    report["nodes"] = sorted(name for name in nodes.NODE_CLASS_MAPPINGS if "Lift3D" in name)
    for name, run in job["runs"].items():
        steps_seen.clear()
        try:
            prompt = run.get("prompt") or make_prompt(package, run, specs)
        except ValueError as error:
            report["runs"][name] = {"valid": False, "error": str(error)}
            continue
        result = await run_prompt(server, name, prompt)
        result["progress_steps"] = len(steps_seen)
        result["previews"] = sum(seen[2] for seen in steps_seen)
        report["runs"][name] = result
    return report


if __name__ == "__main__":
    job_file, report_file = map(Path, sys.argv[1:3])
    done = asyncio.run(drive(json.loads(job_file.read_text(encoding="utf-8"))))
    report_file.write_text(json.dumps(done, indent=1, default=str), encoding="utf-8")
