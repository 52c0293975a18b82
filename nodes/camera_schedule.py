"""Contains the node of the camera schedule of text to Gaussians."""

from __future__ import annotations

from typing import Any

from ..core.pipelines.camera_schedule import CameraScheduleParams
from .distill import CATEGORY
from .host import ADVANCED, io, make_schema
from .sockets import ScheduleSocket
from .widgets import number, whole

PAPER_CAMERAS = CameraScheduleParams()


class MakeCameraSchedule(io.ComfyNode):
    """Sets up where pictures are taken from while the object forms."""

    @classmethod
    def define_schema(cls) -> Any:
        paper = PAPER_CAMERAS
        return make_schema(
            node_id="Lift3D_MakeCameraSchedule",
            display_name="Camera Schedule",
            category=CATEGORY,
            description="Random cameras of text to splat and how their ranges grow during the run. "
            "Defaults are those of the GE3D paper.",
            search_aliases=["cameras", "azimuth range", "random views", "text to 3d"],
            inputs=[
                _angle("elevation_min_deg", paper.elevation_deg[0], -90, "Lowest camera."),
                _angle("elevation_max_deg", paper.elevation_deg[1], -90, "Highest camera."),
                _angle(
                    "azimuth_begin_deg",
                    paper.azimuth_begin_deg,
                    0,
                    "Cameras stand within this angle of the front at first; 180 is all round.",
                    180,
                ),
                _angle("azimuth_end_deg", paper.azimuth_end_deg, 0, "And at last.", 180),
                number("azimuth_growth", paper.azimuth_growth, 0.1, 10.0, "Factor per expansion."),
                _radius("near_begin", paper.radius_begin[0], "Nearest camera at first."),
                _radius("far_begin", paper.radius_begin[1], "Farthest camera at first."),
                _radius("near_end", paper.radius_end[0], "Nearest camera at last."),
                _radius("far_end", paper.radius_end[1], "Farthest camera at last."),
                number("radius_growth", paper.radius_growth, 0.1, 10.0, "Factor per expansion."),
                _angle("fov_min_begin_deg", paper.fov_begin_deg[0], 1, "Smallest view at first."),
                _angle("fov_max_begin_deg", paper.fov_begin_deg[1], 1, "Widest view at first."),
                _angle("fov_min_end_deg", paper.fov_end_deg[0], 1, "Smallest view at last."),
                _angle("fov_max_end_deg", paper.fov_end_deg[1], 1, "Widest view at last."),
                number("fov_min_growth", paper.fov_growth[0], 0.1, 10.0, "Factor per expansion."),
                number("fov_max_growth", paper.fov_growth[1], 0.1, 10.0, "Factor per expansion."),
                whole("expand_from", paper.expand_from, 0, 10**6, "Iteration of the first one."),
                whole(
                    "expand_every",
                    paper.expand_every,
                    0,
                    10**6,
                    "Iterations between two expansions; 0 for none.",
                ),
                number(
                    "concentration",
                    paper.concentration,
                    0.1,
                    10.0,
                    "Above 1 cameras gather near the front and the middle elevation.",
                    **ADVANCED,
                ),
                whole(
                    "same_fov",
                    paper.same_fov,
                    1,
                    10_000,
                    "So many views in a row share a field of view.",
                    **ADVANCED,
                ),
                number(
                    "center_jitter", paper.center_jitter, 0.0, 10.0, "Offset of cameras.",
                    step=0.005, **ADVANCED,
                ),
                number(
                    "target_jitter", paper.target_jitter, 0.0, 10.0, "Offset of what they look at.",
                    step=0.005, **ADVANCED,
                ),
                number(
                    "up_jitter", paper.up_jitter, 0.0, 1.0, "How far they are tilted.",
                    step=0.005, **ADVANCED,
                ),
            ],
            outputs=[ScheduleSocket.Output("schedule", tooltip="For Optimise Gaussians.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, **values: Any) -> Any:
        return io.NodeOutput(schedule_from_widgets(values))


def _angle(id: str, default: float, low: float, tooltip: str, high: float = 0) -> Any:
    most = high or (179 if low == 1 else 90)
    return number(id, default, low, most, tooltip, step=1.0)


def _radius(id: str, default: float, tooltip: str) -> Any:
    return number(id, default, 0.1, 1000.0, tooltip, step=0.1)


def schedule_from_widgets(values: dict[str, Any]) -> CameraScheduleParams:
    """Schedule of the node's widgets."""

    def pair(first: str, second: str) -> tuple[float, float]:
        return values[first], values[second]

    same = (
        "azimuth_begin_deg", "azimuth_end_deg", "azimuth_growth", "radius_growth", "expand_from",
        "expand_every", "concentration", "same_fov", "center_jitter", "target_jitter", "up_jitter",
    )  # fmt: skip
    return CameraScheduleParams(
        elevation_deg=pair("elevation_min_deg", "elevation_max_deg"),
        radius_begin=pair("near_begin", "far_begin"),
        radius_end=pair("near_end", "far_end"),
        fov_begin_deg=pair("fov_min_begin_deg", "fov_max_begin_deg"),
        fov_end_deg=pair("fov_min_end_deg", "fov_max_end_deg"),
        fov_growth=pair("fov_min_growth", "fov_max_growth"),
        **{name: values[name] for name in same},
    )


NODES = [MakeCameraSchedule]
