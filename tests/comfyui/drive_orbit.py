"""Measures SV3D in ComfyUI beside ours, with one file of weights: python drive_orbit.py JOB REPORT.

The job names the checkout, the tiny checkpoint and a LoRA for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402
from drive_comfyui import start_comfyui  # noqa: E402
from tiny_orbit import load_sv3d  # noqa: E402

FRAMES, SIZE_PX, STEPS, GUIDANCE = 5, 64, 3, 2.5
ELEVATIONS = (10.0, 12.0, 14.0, 8.0, 5.0)


def gap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((first - second).abs().max()) / max(float(second.abs().max()), 1e-12)


class Scene:
    """Both models, and the same picture, poses and noise for both."""

    def __init__(self, checkpoint: Path) -> None:
        from lift3d.core.diffusion.orbit_conditioning import embed_poses, make_orbit_poses
        from lift3d.core.diffusion.orbit_files import load_orbit_model
        from lift3d.core.diffusion.orbit_model import OrbitCondition

        with torch.inference_mode():
            self.native, _ = load_sv3d(checkpoint)
        self.ours = load_orbit_model(checkpoint)
        side = SIZE_PX // 8
        generator = torch.Generator().manual_seed(0)
        self.token = torch.randn(1, 16, generator=generator)
        self.latent = torch.randn(1, 4, side, side, generator=generator)
        self.noise = torch.randn(FRAMES, 4, side, side, generator=generator)
        self.image = torch.rand(1, SIZE_PX, SIZE_PX, 3, generator=generator)
        vectors = embed_poses(make_orbit_poses(FRAMES, ELEVATIONS, "input last"), "p")
        self.condition = OrbitCondition(self.token[None], self.latent, vectors[None])

    def native_conditioning(self) -> Any:
        """What our node gives, with an encoder of pictures that knows one picture."""
        from lift3d.nodes.video import EncodeOrbit

        clip = SimpleNamespace(encode_image=lambda image: SimpleNamespace(image_embeds=self.token))
        vae = SimpleNamespace(encode=lambda image: self.latent)
        return EncodeOrbit.execute(
            clip, vae, self.image, SIZE_PX, 4.0, 33.8, "counter-clockwise", frames=FRAMES,
            elevation=0.0, order="input last", elevations=", ".join(map(str, ELEVATIONS)),
            azimuths="",
        ).result  # fmt: skip

    def sample(self, model: Any) -> torch.Tensor:
        """Network latents of ComfyUI's own sampler behind its own guidance."""
        import comfy.sample
        import comfy.samplers

        import nodes

        guide = nodes.NODE_CLASS_MAPPINGS["VideoTriangleCFGGuidance"]
        positive, negative, empty, _ = self.native_conditioning()
        with torch.inference_mode():
            (guided,) = guide().patch(model, 1.0)
            found = comfy.sample.sample_custom(
                guided, self.noise, GUIDANCE, comfy.samplers.sampler_object("euler"),
                self.sigmas(), positive, negative, empty["samples"], disable_pbar=True, seed=0,
            )  # fmt: skip
        return guided.model.latent_format.process_in(found)

    def sigmas(self) -> torch.Tensor:
        """ComfyUI's noise levels of "karras" for this model."""
        import comfy.samplers

        sampling = self.native.get_model_object("model_sampling")
        return comfy.samplers.calculate_sigmas(sampling, "karras", STEPS)

    def sample_ours(self, model: Any) -> torch.Tensor:
        """Network latents of our sampler."""
        from lift3d.core.diffusion.orbit_conditioning import triangle_guidance
        from lift3d.core.diffusion.sampling import sample_latents
        from lift3d.core.pipelines.image_to_orbit import GuidedOrbit

        sigmas = self.sigmas()
        start = self.noise[None] * float(1 + sigmas[0] ** 2) ** 0.5
        denoise = GuidedOrbit(model, triangle_guidance(FRAMES, GUIDANCE))
        with torch.no_grad():
            return sample_latents(denoise, start, sigmas, self.condition, method="euler")[0]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """All numbers."""
    import comfy.sd
    import comfy.utils
    from lift3d.core.diffusion.orbit_files import with_orbit_lora
    from lift3d.core.diffusion.schedules import make_karras_sigmas

    scene = Scene(Path(job["checkpoint"]))
    plain, ours = scene.sample(scene.native), scene.sample_ours(scene.ours)
    lora = comfy.utils.load_torch_file(job["lora"], safe_load=True)
    changed, _ = comfy.sd.load_lora_for_models(scene.native, None, lora, 0.7, 0.0)
    with_lora = scene.sample(changed)
    ours_with_lora = scene.sample_ours(with_orbit_lora(scene.ours, job["lora"], 0.7))
    levels = make_karras_sigmas(STEPS, sigma_min=0.002, sigma_max=700.0)
    rig = scene.native_conditioning()[3]
    return {
        "sampled": gap(ours, plain), "size": float(plain.abs().max()),
        "with_lora": gap(ours_with_lora, with_lora), "changed": gap(with_lora, plain),
        "patched": len(changed.patches), "lora_layers": len(lora) // 2,
        "levels": gap(levels, scene.sigmas()), "cameras": len(rig),
    }  # fmt: skip


def drive(job: dict[str, Any]) -> dict[str, Any]:
    """Start ComfyUI with its stock nodes and measure."""
    import asyncio

    torch.set_num_threads(1)
    start_comfyui(Path(job["comfyui"]), Path(job["folder"]))
    import nodes
    import run

    asyncio.run(nodes.init_builtin_extra_nodes())
    run.register_package()
    return measure(job)


if __name__ == "__main__":
    job_file, report_file = map(Path, sys.argv[1:3])
    done = drive(json.loads(job_file.read_text(encoding="utf-8")))
    report_file.write_text(json.dumps(done, indent=1), encoding="utf-8")
