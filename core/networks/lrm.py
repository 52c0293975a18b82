"""Contains the large reconstruction model: a few views of an object to a triplane of it.

One network serves PRM (Kiss3DGen), InstantMesh-large and S-LRM (StdGEN, with semantic classes).

Reference: Xu et al. 2024, "InstantMesh"; He et al. 2025, "StdGEN", Sec. 3.3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.triplane_sampling import query_triplane
from ..progress import ProgressCallback, ignore_progress
from ..triplane import Triplane
from .attention import merge_lora
from .lrm_cameras import kiss3dgen_to_world, stdgen_to_world
from .triplane_decoder import TriplaneDecoder, TriplaneDecoderParams
from .triplane_transformer import TriplaneTransformer, TriplaneTransformerParams
from .vision_encoder import VisionEncoder, VisionEncoderParams
from .weights import load_weights, read_weights

Frame = Literal["kiss3dgen", "stdgen"]
PublishedLrm = Literal["prm", "instantmesh_large", "instantmesh_large_nerf", "stdgen_slrm"]

KEY_PREFIX = "lrm_generator."
BOUND = 1.0
"""The planes of all published models cover [-1, 1]^3."""
CONFIG_FILE = Path(__file__).resolve().parent.parent / "configs" / "lrm.yaml"
MAX_CONFIG_BYTES = 1 << 20

_TO_WORLD: dict[str, Callable[[Tensor], Tensor]] = {
    "kiss3dgen": kiss3dgen_to_world,
    "stdgen": stdgen_to_world,
}


@dataclass(frozen=True)
class LrmGridParams:
    """The grid that a surface is extracted from, centred, in the frame of the model.

    Attributes:
        cells: number along x, y, z.
        scale: side of the grid along x, y, z.
    """

    cells: tuple[int, int, int] = (128, 128, 128)
    scale: tuple[float, float, float] = (2.1, 2.1, 2.1)

    def __post_init__(self) -> None:
        if min(self.cells) < 1 or not min(self.scale) > 0:
            raise ValueError(f"cells and scale must be positive, got {self.cells}, {self.scale}.")

    def points(self, device: torch.device | str = "cpu") -> Float[Tensor, "x y z 3"]:
        """Positions of the corners of all cells."""
        axes = [
            (torch.arange(count + 1, device=device, dtype=torch.float32) / count - 0.5) * side
            for count, side in zip(self.cells, self.scale, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def displacement(self, raw: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
        """Movement of corners from the output of the deformation head: tanh / (4 cells)."""
        return torch.tanh(raw) / (4 * max(self.cells))


@dataclass(frozen=True)
class LrmParams:
    """Size and kind of a model; the defaults are those of PRM but for its material head.

    Attributes:
        frame: family whose frame the model lives in.
        image_px: side of the views that go in.
        encoder: views to tokens.
        transformer: tokens to planes.
        decoder: heads.
        grid: for the extraction of a surface.
        label_names: of the semantic classes, in the order of the checkpoint.
    """

    frame: Frame = "kiss3dgen"
    image_px: int = 512
    encoder: VisionEncoderParams = field(default_factory=VisionEncoderParams)
    transformer: TriplaneTransformerParams = field(default_factory=TriplaneTransformerParams)
    decoder: TriplaneDecoderParams = field(default_factory=TriplaneDecoderParams)
    grid: LrmGridParams = field(default_factory=LrmGridParams)
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.frame not in _TO_WORLD:
            raise ValueError(f"Unknown frame '{self.frame}'; choose {', '.join(_TO_WORLD)}.")
        if self.encoder.dim != self.transformer.condition_dim:
            raise ValueError(
                f"The encoder makes tokens of width {self.encoder.dim}, but the transformer "
                f"expects {self.transformer.condition_dim}."
            )
        if self.transformer.num_channels != self.decoder.plane_channels:
            raise ValueError(
                f"The transformer makes {self.transformer.num_channels} channels, but the decoder "
                f"expects {self.decoder.plane_channels}."
            )
        if len(self.label_names) != self.decoder.num_labels:
            raise ValueError(
                f"{self.decoder.num_labels} classes need as many names, got {self.label_names}."
            )

    def without_lora(self) -> LrmParams:
        """The same model once its adapters are merged."""
        return replace(self, transformer=replace(self.transformer, lora_rank=0))


class _Synthesizer(nn.Module):
    """Holds the decoder under its published name."""

    def __init__(self, params: TriplaneDecoderParams):
        super().__init__()
        self.decoder = TriplaneDecoder(params)


class LargeReconstructionModel(nn.Module):
    """Views to a triplane, and heads that read it."""

    def __init__(self, params: LrmParams):
        super().__init__()
        self.params = params
        self.encoder = VisionEncoder(params.encoder)
        self.transformer = TriplaneTransformer(params.transformer)
        self.synthesizer = _Synthesizer(params.decoder)

    @property
    def decoder(self) -> TriplaneDecoder:
        """The heads."""
        return self.synthesizer.decoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.transformer.pos_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights of encoder and transformer."""
        return self.transformer.pos_embed.dtype

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        cameras: Float[Tensor, "batch view 16"],
        *,
        on_progress: ProgressCallback = ignore_progress,
    ) -> Float[Tensor, "batch plane=3 channel plane_height plane_width"]:
        """Planes of objects on white, in the frame of the model; any number of views.

        Args:
            images: 0..1.
            cameras: see `lrm_cameras`.
            on_progress: called after each layer of the transformer.
        """
        tokens = self.encoder(
            images.to(self.device, self.dtype), cameras.to(self.device, self.dtype)
        )
        return self.transformer(tokens, on_progress=on_progress)

    def features(
        self, triplane: Triplane, points: Float[Tensor, "point 3"]
    ) -> Float[Tensor, "point feature"]:
        """What the heads read at points in the frame of the model."""
        return query_triplane(triplane, points[None].to(triplane.planes))[0]

    def to_world(self, points: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
        """From the frame of the model to the world (a rotation)."""
        return _TO_WORLD[self.params.frame](points)

    def from_world(self, points: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
        """From the world to the frame of the model."""
        axes = self.to_world(torch.eye(3, dtype=points.dtype, device=points.device))
        return points @ axes.T

    def density_field(self, triplane: Triplane) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Density and colour at points in the world, for `rendering.volume` ("nerf" stage)."""
        return lambda points: self.decoder.density_rgb(
            self.features(triplane, self.from_world(points))
        )

    def semantic_density_field(
        self, triplane: Triplane
    ) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Density, colour and probabilities of classes, for `rendering.semantic_volume`."""

        def field(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            features = self.features(triplane, self.from_world(points))
            density, rgb = self.decoder.density_rgb(features)
            return density, rgb, self.decoder.semantic_logits(features).softmax(dim=-1)

        return field


@functools.cache
def load_lrm_params(name: PublishedLrm) -> LrmParams:
    """Sizes of a published model."""
    from omegaconf import OmegaConf

    models = OmegaConf.load(CONFIG_FILE).models
    if name not in models:
        raise ValueError(f"Unknown model '{name}'; choose {', '.join(models)}.")
    return _params_from_config(models[name])


def read_lrm_params(path: Path | str) -> LrmParams:
    """Sizes of a model of one's own: a YAML file that names what differs from the large one.

    The settings are those of `core/configs/lrm.yaml`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or names settings that do not exist or do not fit together.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; check the path.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path.name} is too large for a configuration.")
    try:
        return _params_from_config(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path.name} describes no reconstruction model: {reason}") from error


def _params_from_config(changes: Any) -> LrmParams:
    from omegaconf import OmegaConf

    large = OmegaConf.load(CONFIG_FILE).large
    OmegaConf.set_struct(large, True)  # a misspelt setting is an error
    merged = OmegaConf.merge(large, changes)
    values: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    grid = {key: tuple(value) for key, value in values.pop("grid").items()}
    return LrmParams(
        encoder=VisionEncoderParams(**values.pop("encoder")),
        transformer=TriplaneTransformerParams(**values.pop("transformer")),
        decoder=TriplaneDecoderParams(**values.pop("decoder")),
        grid=LrmGridParams(**grid),
        label_names=tuple(values.pop("label_names")),
        **values,
    )


def make_lrm(params: LrmParams, *, seed: int = 0) -> LargeReconstructionModel:
    """Untrained model; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LargeReconstructionModel(params)


def load_lrm(
    path: Path | str,
    params: LrmParams,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LargeReconstructionModel:
    """Model for inference from a checkpoint; adapters in the file are merged.

    Accepts Lightning checkpoints (keys under ``lrm_generator.``, others ignored) and bare state
    dicts, with or without adapters.

    Args:
        path: the file.
        params: the model that it belongs to.
        device: where the model shall lie.
        dtype: of encoder and transformer; the small heads stay in single precision, because
            a position in half precision is no finer than a cell of the grid.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or its keys do not fit; the message lists them.
    """
    path = Path(path)
    state = read_weights(path, prefix=KEY_PREFIX)
    return build_lrm(state, params, name=path.name, device=device, dtype=dtype)


def build_lrm(
    state: Mapping[str, Tensor],
    params: LrmParams,
    *,
    name: str = "The state dict",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LargeReconstructionModel:
    """Model for inference from a bare state dict; see `load_lrm`."""
    merged = merge_lora(state, alpha=params.transformer.lora_alpha)
    model = empty_lrm(params.without_lora()).to(dtype)
    model.synthesizer.float()
    load_weights(model, merged, name=name)
    return model.to(device).eval().requires_grad_(False)


def empty_lrm(params: LrmParams) -> LargeReconstructionModel:
    """Model without values (on the meta device), to compare layouts with."""
    with torch.device("meta"):
        return LargeReconstructionModel(params)
