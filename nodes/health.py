"""Contains the node that says what is ready on this machine and how to get the rest."""

from __future__ import annotations

from typing import Any

from ..core.health import check_health, health_text, is_healthy
from .host import io, make_schema, model_folders, report_face


class CheckHealth(io.ComfyNode):
    """Reports on libraries, backends and capabilities."""

    @classmethod
    def define_schema(cls) -> Any:
        return make_schema(
            node_id="Lift3D_CheckHealth",
            display_name="Lift3D Health",
            category="Lift3D",
            description="Says which capabilities of Lift3D are ready on this machine, which "
            "library is missing, and the exact remedy.",
            search_aliases=["diagnose", "check install", "missing libraries", "troubleshoot"],
            is_output_node=True,
            not_idempotent=True,
            inputs=[],
            outputs=[
                io.String.Output("report", tooltip="One line per finding, with remedies."),
                io.Boolean.Output(
                    "healthy", tooltip="True when nothing that is needed is missing."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls) -> float:
        """Look again every time."""
        return float("nan")

    @classmethod
    def execute(cls) -> Any:
        findings = check_health(model_folders())
        report = health_text(findings)
        return io.NodeOutput(report, is_healthy(findings), ui=report_face(report))


NODES = [CheckHealth]
