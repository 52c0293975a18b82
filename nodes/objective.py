"""Contains the node of the distillation recipe: GE3D, SDS or ISM with all their numbers."""

from __future__ import annotations

from typing import Any

from ..core.diffusion.distillation import AlignmentParams, IntervalParams
from ..core.diffusion.objective import ObjectiveParams, ScoreParams
from ..core.diffusion.trajectories import NodeParams
from .distill import CATEGORY
from .host import ADVANCED, io, make_schema
from .sockets import ObjectiveSocket
from .widgets import choice, number, whole

PAPER_OBJECTIVE = ObjectiveParams()


def alignment_inputs() -> list[Any]:
    """Widgets of GE3D's own numbers."""
    nodes, paper = PAPER_OBJECTIVE.alignment.nodes, PAPER_OBJECTIVE.alignment
    return [
        whole("max_jumps", nodes.num_jumps, 1, 50, "GE3D: most time nodes of the trajectories."),
        whole(
            "jump_min_begin", nodes.jump_begin[0], 1, 999, "GE3D: shortest jump at the beginning."
        ),
        whole(
            "jump_max_begin",
            nodes.jump_begin[1],
            2,
            1000,
            "GE3D: jumps at the beginning stay below this.",
        ),
        whole("jump_min_end", nodes.jump_end[0], 1, 999, "GE3D: shortest jump at the end."),
        whole(
            "jump_max_end", nodes.jump_end[1], 2, 1000, "GE3D: jumps at the end stay below this."
        ),
        whole(
            "farthest_begin",
            nodes.farthest_begin,
            2,
            1000,
            "GE3D: no node reaches this timestep at the beginning. Too small fails, too large "
            "drifts away from the object.",
        ),
        whole("farthest_end", nodes.farthest_end, 2, 1000, "GE3D: no node reaches it at the end."),
        number(
            "balance_width",
            0.0,
            0.0,
            1e6,
            "GE3D: width in iterations of the change from coarse to fine nodes; 0 takes a third "
            "of the run, the paper's 1000 at its 3000.",
            step=10.0,
            **ADVANCED,
        ),
        io.Boolean.Input(
            "clean_target",
            default=paper.clean_target,
            tooltip="GE3D: compare the last node with the clean latents, as the released code "
            "does.",
            **ADVANCED,
        ),
        choice(
            "jacobian",
            ["identity", "linear"],
            paper.jacobian,
            "GE3D: what a change of the latents does to a node: everything as in the released "
            "code, or its linear part.",
            **ADVANCED,
        ),
        io.Boolean.Input(
            "renormalize",
            default=paper.renormalize,
            tooltip="GE3D: let the node weights sum to 1 when there are fewer nodes than jumps.",
            **ADVANCED,
        ),
        number(
            "offset_noise",
            paper.offset_noise,
            0.0,
            1.0,
            "GE3D: share of noise that is constant over a picture; 0.1 in the released code.",
            **ADVANCED,
        ),
    ]


def score_inputs() -> list[Any]:
    """Widgets of the two other objectives."""
    score, interval = PAPER_OBJECTIVE.score, PAPER_OBJECTIVE.interval
    return [
        choice(
            "sds_weighting",
            ["sds", "uniform", "fantasia3d", "sigma"],
            score.weighting,
            "SDS: weight of a noise level.",
            **ADVANCED,
        ),
        number("sds_t_min", score.timestep_range[0], 0.0, 1.0, "SDS: lowest time.", **ADVANCED),
        number(
            "sds_t_max",
            score.timestep_range[1],
            0.0,
            1.0,
            "SDS: highest time at the beginning.",
            **ADVANCED,
        ),
        number(
            "sds_t_max_end",
            score.largest_end,
            0.0,
            1.0,
            "SDS: highest time at the end.",
            **ADVANCED,
        ),
        number("ism_t_min", interval.timestep_range[0], 0.0, 1.0, "ISM: lowest time.", **ADVANCED),
        number(
            "ism_t_max",
            interval.timestep_range[1],
            0.0,
            1.0,
            "ISM: highest time at the end.",
            **ADVANCED,
        ),
        number(
            "ism_t_max_begin",
            interval.warmup_largest,
            0.0,
            1.0,
            "ISM: highest time at the beginning.",
            **ADVANCED,
        ),
        whole(
            "ism_interval_min",
            interval.interval[0],
            1,
            999,
            "ISM: shortest interval in timesteps.",
            **ADVANCED,
        ),
        whole(
            "ism_interval_max",
            interval.interval[1],
            2,
            1000,
            "ISM: intervals stay below this.",
            **ADVANCED,
        ),
        whole(
            "ism_jump",
            interval.inversion_jump,
            1,
            1000,
            "ISM: longest jump on the way up.",
            **ADVANCED,
        ),
        whole(
            "ism_jumps",
            interval.max_inversion_jumps,
            1,
            50,
            "ISM: most jumps on the way up.",
            **ADVANCED,
        ),
    ]


class MakeObjective(io.ComfyNode):
    """Sets up how a model's opinion becomes a gradient."""

    @classmethod
    def define_schema(cls) -> Any:
        paper = PAPER_OBJECTIVE
        return make_schema(
            node_id="Lift3D_MakeObjective",
            display_name="Distillation Objective",
            category=CATEGORY,
            description="The recipe of text to splat: GE3D (two aligned trajectories), SDS or ISM, "
            "with guidance and view-dependent prompts. Defaults are those of the GE3D paper.",
            search_aliases=["ge3d", "sds", "ism", "score distillation", "luciddreamer", "perp-neg"],
            inputs=[
                choice(
                    "objective",
                    ["ge3d", "sds", "ism"],
                    paper.kind,
                    "'ge3d' aligns a noising and a denoising trajectory, 'ism' one interval of "
                    "them, 'sds' looks at one noise level (give it guidance 100).",
                ),
                number(
                    "guidance",
                    paper.guidance_scale,
                    0.01,
                    1000.0,
                    "How strictly the prompt is followed: 7.5 for GE3D and ISM, 100 for SDS, 3.5 "
                    "for Flux.",
                    step=0.1,
                ),
                number("strength", paper.strength, 1e-4, 1e4, "Factor on the gradient.", step=0.01),
                choice(
                    "perp_neg",
                    ["ge3d", "threestudio", "off"],
                    "ge3d",
                    "Keeps the front away from side and back views, so that there is one face "
                    "only. Costs up to two thirds more evaluations.",
                ),
                choice(
                    "inversion_text",
                    ["empty", "negative"],
                    paper.inversion_text,
                    "Text of the way up: empty as in the paper, negative as in the released code. "
                    "No effect with noising random.",
                    **ADVANCED,
                ),
                choice(
                    "unconditional_text",
                    ["empty", "negative"],
                    paper.unconditional_text,
                    "What guidance contrasts the prompt to.",
                    **ADVANCED,
                ),
                io.String.Input(
                    "negative_prompt",
                    default=paper.negative_prompt,
                    tooltip="The text that 'negative' stands for.",
                    **ADVANCED,
                ),
                io.String.Input(
                    "view_template",
                    default=paper.view_template,
                    tooltip="How a view is named: {text} stands for the prompt, {view} for front, "
                    "side, back or overhead.",
                    **ADVANCED,
                ),
                *alignment_inputs(),
                *score_inputs(),
                choice(
                    "noising",
                    ["inversion", "random"],
                    paper.alignment.noising,
                    "GE3D's way up: 'inversion' asks the model, as in the paper, and keeps what "
                    "the picture holds; 'random' adds noise as SDS does and costs nothing. It "
                    "served the small embedded model better.",
                    **ADVANCED,
                ),
            ],
            outputs=[ObjectiveSocket.Output("objective", tooltip="For Optimise Gaussians.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> Any:
        return io.NodeOutput(objective_from_widgets(values))


def objective_from_widgets(values: dict[str, Any]) -> ObjectiveParams:
    """Recipe of the node's widgets."""
    nodes = NodeParams(
        values["max_jumps"],
        (values["jump_min_begin"], values["jump_max_begin"]),
        (values["jump_min_end"], values["jump_max_end"]),
        values["farthest_begin"],
        values["farthest_end"],
    )
    alignment = AlignmentParams(
        nodes,
        width=values["balance_width"] or None,
        clean_target=values["clean_target"],
        jacobian=values["jacobian"],
        renormalize=values["renormalize"],
        offset_noise=values["offset_noise"],
        noising=values["noising"],
    )
    return ObjectiveParams(
        kind=values["objective"],
        guidance_scale=values["guidance"],
        strength=values["strength"],
        inversion_text=values["inversion_text"],
        unconditional_text=values["unconditional_text"],
        negative_prompt=values["negative_prompt"],
        view_template=values["view_template"],
        perp_neg=None if values["perp_neg"] == "off" else values["perp_neg"],
        alignment=alignment,
        score=ScoreParams(
            (values["sds_t_min"], values["sds_t_max"]),
            values["sds_t_max_end"],
            values["sds_weighting"],
        ),
        interval=IntervalParams(
            (values["ism_t_min"], values["ism_t_max"]),
            values["ism_t_max_begin"],
            (values["ism_interval_min"], values["ism_interval_max"]),
            values["ism_jump"],
            values["ism_jumps"],
        ),
    )


NODES = [MakeObjective]
