"""The parts of the pipeline as modules whose `forward` is a package's whole arithmetic, from inputs to outputs.

What a part computes is what `predictor.engine.eager` does around the same modules; the calling convention is written
down in `docs/bundle.md`. Inputs and outputs are contiguous; convolutions run on channels_last tensors.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from predictor.engine.clip import TextEncoder
from predictor.engine.samplers import Column
from predictor.lab.bake.plan import Job
from predictor.lab.bake.preview import PreviewDecoder

TIMESTEP, GUIDANCE = len(Column), len(Column) + 1  # columns of a row's scalars, after its sampler's coefficients
SCALARS = len(Column) + 2
EXAMPLE = 3, 5  # images and evaluations of the export: unlike each other, so that none is taken for the other


class TextPart(nn.Module):
    """Token ids, int64 [n, tokens] for each encoder → hidden states [n, tokens, width]; SDXL: and pooled [n, width]."""

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, encoder in encoders.items():
            self.add_module(name, encoder)

    def forward(self, *ids: Tensor) -> tuple[Tensor, ...]:
        """SD reads its encoder's last layer; SDXL the layer before the last of both, and what the second projects."""
        outputs = [encoder(own) for encoder, own in zip(self.children(), ids, strict=True)]
        if len(outputs) == 1:
            return (outputs[0][0],)
        hidden = torch.cat([before for _, before, _ in outputs], dim=-1)
        return hidden, outputs[-1][2]


class StepPart(nn.Module):
    """One denoising step of many images: prediction, guidance, and each image's own sampler.

    `evaluations` of the UNet are rows of `hidden`; `image` says which image each belongs to, `positive` and `negative`
    which of them are an image's with and without the prompt. Where guidance is off, both are one.
    """

    time_ids: Tensor

    def __init__(self, unet: nn.Module, job: Job) -> None:
        super().__init__()
        self.unet = unet
        sizes = [job.height, job.width, 0, 0, job.height, job.width]  # original, crop, target
        ids = torch.tensor([sizes], dtype=getattr(torch, job.dtype), device=job.device)
        self.register_buffer("time_ids", ids if job.pooled else None, persistent=False)
        self.dtype = getattr(torch, job.dtype)

    def forward(
        self, latents: Tensor, denoised: Tensor, noise: Tensor, scalars: Tensor, hidden: Tensor, *rest: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Next latents and the denoised estimate, float32 [images, channels, h, w].

        Args:
            latents: float32 [images, channels, h, w].
            denoised: the last step's estimate, the same.
            noise: the same.
            scalars: float32 [images, 8]: `Column`, then timestep, then guidance scale.
            hidden: [evaluations, tokens, width].
            rest: SDXL's pooled text [evaluations, width] if it is one; then `image`, int64 [evaluations], `positive`
                and `negative`, int64 [images].
        """
        *pooled, image, positive, negative = rest
        extra: dict[str, Any] = {}
        if pooled:
            time_ids = self.time_ids.expand(hidden.shape[0], -1)
            extra["added_cond_kwargs"] = {"text_embeds": pooled[0], "time_ids": time_ids}
        x = latents[image].to(self.dtype).contiguous(memory_format=torch.channels_last)
        out = self.unet(x, scalars[image, TIMESTEP], hidden, return_dict=False, **extra)[0].float()
        columns = [column[:, None, None, None] for column in scalars.unbind(1)]
        without = out[negative]
        out = without + columns[GUIDANCE] * (out[positive] - without)
        estimate = columns[Column.DENOISED_LATENTS] * latents + columns[Column.DENOISED_OUTPUT] * out
        following = (
            columns[Column.LATENTS] * latents
            + columns[Column.OUTPUT] * out
            + columns[Column.MEMORY] * denoised
            + columns[Column.NOISE] * noise
        )
        return following.contiguous(), estimate.contiguous()


class DecodePart(nn.Module):
    """Latents → pictures."""

    def __init__(self, vae: Any, job: Job) -> None:
        super().__init__()
        self.vae = vae
        self.dtype = getattr(torch, job.dtype)
        self.factor, self.shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0

    def forward(self, latents: Tensor) -> Tensor:
        """Float32 [n, channels, h, w] → uint8 [n, height, width, 3]."""
        x = (latents / self.factor + self.shift).to(self.dtype).contiguous(memory_format=torch.channels_last)
        image: Tensor = self.vae.decode(x, return_dict=False)[0].float()
        levels = (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous()


class PreviewPart(nn.Module):
    """Denoised latents, float32 [n, channels, h, w] → small pictures, uint8 [n, h, w, 3]."""

    def __init__(self, preview: nn.Module) -> None:
        super().__init__()
        self.preview = preview

    def forward(self, latents: Tensor) -> Tensor:
        """What the preview network says."""
        picture: Tensor = self.preview(latents)
        return picture


def assemble(job: Job, components: Mapping[str, nn.Module]) -> nn.Module:
    """The job's part around components that are on its device, in its dtype."""
    if job.kind == "text":
        return TextPart({name: components[name] for name in job.configs})
    if job.kind == "step":
        return StepPart(components["unet"], job)
    if job.kind == "decode":
        return DecodePart(components["vae"], job)
    return PreviewPart(components["preview"])


def blank(job: Job) -> nn.Module:
    """The job's part with random weights.

    A compiler may fold what it finds in weights, such as a norm that only holds ones, into its code; with random ones
    it finds nothing, and the code is right for every checkpoint.
    """
    with torch.device(job.device):
        components = {name: _blank_component(name, job) for name in (job.configs or ["preview"])}
    part = assemble(job, {name: settle(component, job) for name, component in components.items()})
    generator = torch.Generator(job.device).manual_seed(0)
    with torch.no_grad():
        for tensor in part.state_dict().values():
            tensor.normal_(0.0, 0.02, generator=generator)
    return part


def settle(component: nn.Module, job: Job) -> nn.Module:
    """A component ready to run: on the job's device, in its dtype, its convolutions' weights channels_last."""
    # Not `module.to`: diffusers overrides it to warn about a cast that is meant.
    move: Any = nn.Module.to
    moved: nn.Module = move(component, job.device, getattr(torch, job.dtype), memory_format=torch.channels_last)
    return moved.eval().requires_grad_(False)


def example(job: Job, images: int, evaluations: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Random inputs of a call, contiguous, on the job's device; every index and token id is one that exists."""
    device, hidden_dtype = job.device, getattr(torch, job.hidden_dtype)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    def whole(below: int, *shape: int) -> Tensor:
        return torch.randint(below, shape, generator=generator, device=device)

    if job.kind == "text":
        return tuple(whole(config["vocab_size"], images, job.tokens) for config in job.configs.values())
    latents = normal(images, *job.latents)
    if job.kind != "step":
        return (latents,)
    scalars = normal(images, SCALARS)
    scalars[:, TIMESTEP] = whole(1000, images).float()
    scalars[:, GUIDANCE] = 1 + whole(8, images).float()
    hidden = [normal(evaluations, job.tokens, job.hidden, dtype=hidden_dtype)]
    if job.pooled:
        hidden.append(normal(evaluations, job.pooled, dtype=hidden_dtype))
    indices = whole(images, evaluations), whole(evaluations, images), whole(evaluations, images)
    return (latents, normal(*latents.shape), normal(*latents.shape), scalars, *hidden, *indices)


def export_example(job: Job) -> tuple[tuple[Tensor, ...], Any]:
    """Inputs to export the job's part with, and which of their sides may vary, as `torch.export.export` takes it."""
    generator = torch.Generator(job.device).manual_seed(1)
    if job.images[0] == job.images[1]:
        return example(job, job.images[0], job.evaluations[0], generator), None
    inputs = example(job, *EXAMPLE, generator)
    images = {0: torch.export.Dim("images", min=job.images[0], max=job.images[1])}
    if job.kind != "step":
        return inputs, (images,)
    evaluations = {0: torch.export.Dim("evaluations", min=job.evaluations[0], max=job.evaluations[1])}
    pooled = [evaluations] if job.pooled else []
    return inputs, (images, images, images, images, evaluations, (*pooled, evaluations, images, images))


def _blank_component(name: str, job: Job) -> nn.Module:
    if name == "unet":
        return UNet2DConditionModel.from_config(job.configs[name])  # type: ignore[no-any-return]
    if name == "vae":
        vae = AutoencoderKL.from_config(job.configs[name])
        del vae.encoder, vae.quant_conv
        return vae  # type: ignore[no-any-return]
    if name == "preview":
        return PreviewDecoder(job.channels)
    return TextEncoder(job.configs[name], name in job.projected)
