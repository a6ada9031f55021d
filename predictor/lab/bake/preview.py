"""A small network that shows latents as a picture of their own size, fitted to any VAE without a data set.

Where colours are not linear in the latents, `predictor.engine.preview.LatentRGB` shows wrong ones. Here the VAE's own
decoder is the teacher, and the network learns the mean colour that it gives under each latent. Its lessons are drawn
pictures, but a VAE need not know what is drawn here: so each picture walks, decoded and encoded again, towards what the
VAE was trained on. Others are bent into what a denoiser estimates on its way: blurred, mixed, shrunken, noisy. A small
network in the decoder's place is the idea of TAESD (github.com/madebyollin/taesd).
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from predictor.engine import modules
from predictor.engine.folder import ModelFolder
from predictor.engine.weights import WeightReader
from predictor.lab.bake.children import BakeError

log = logging.getLogger(__name__)

WIDTH = 32
DILATIONS = (1, 2, 2, 1)
SIDES = 16, 32  # latents on a side of a lesson: smaller ones hold no shapes, larger ones cost more than they teach
WALK = 3  # times that a picture is encoded and decoded
AT_ONCE = 8  # pictures in the VAE
LAYERS = 3  # shapes of a drawn picture, at most
BATCH = 8
LEARNING_RATE = 8e-3
STEEPEST = 1.0  # gradient's length: a rare lesson must not undo the others
RARE = 4.0  # what stands out from its picture counts up to so much more: else backgrounds are all that is learnt
NEAR = 0.05  # of the levels' range: larger errors count by their size, not its square, so that edges do not rule


class PreviewError(BakeError):
    """The VAE gives nothing to learn from."""


class PreviewDecoder(nn.Module):
    """Latents as a denoiser holds them, float32 [n, channels, h, w] → small pictures, uint8 [n, h, w, 3]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(dilation) for dilation in DILATIONS)
        self.leave = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """The pictures in whole levels, contiguous; what is not a number is black."""
        colours = torch.nan_to_num(self.colours(latents)).clamp(0, 1)
        return colours.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def colours(self, latents: Tensor) -> Tensor:
        """The pictures before they are cut to 0…1, float32 [n, 3, h, w]: what training needs."""
        features: Tensor = self.enter(latents)
        for block in self.blocks:
            features = block(features)
        colours: Tensor = self.leave(functional.silu(features))
        return colours


class _Block(nn.Module):
    """What is near, and what is in the whole picture: norms and attention in a VAE let colours depend on both."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)
        self.whole = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, features: Tensor) -> Tensor:
        active = functional.silu(features)
        out: Tensor = features + self.near(active) + self.whole(active.mean((2, 3), keepdim=True))
        return out


def load_teacher(folder: ModelFolder, half: bool) -> Any:
    """The folder's AutoencoderKL on the CPU in its files' dtype, without an encoder if the files hold none.

    Raises:
        FolderError: it has no weights.
        WeightError: they do not match its configuration.
    """
    from diffusers import AutoencoderKL

    paths = folder.weights("vae", half)
    reader = WeightReader(paths)
    if not any(name.startswith("encoder.") for path in paths for name in reader.headers[path]):
        return modules.vae(folder, reader, paths)
    return modules.build(lambda: AutoencoderKL.from_config(folder.config("vae")), paths, reader)


def fit_preview(vae: Any, device: torch.device, seed: int, count: int = 112, updates: int = 1200) -> PreviewDecoder:
    """A preview decoder for `vae`, an AutoencoderKL on `device`; it comes back on the CPU, in eval mode.

    Without an encoder the lessons are latents drawn at random, which fit worse; the log says so. The same seed gives
    the same weights on a CPU with the same number of threads.

    Args:
        vae: of any dtype; it is only run.
        device: where the VAE is, and where the network is trained in float32.
        seed: of the pictures and of the training.
        count: pictures to draw.
        updates: of the network's weights, each by a few of the lessons.

    Raises:
        PreviewError: most of what the VAE gives is not finite.
    """
    generator = Generator().manual_seed(seed)
    teacher = _Teacher(vae, device)
    latents, targets = _lessons(teacher, generator, count)
    good = latents.isfinite().flatten(1).all(1) & targets.isfinite().flatten(1).all(1)
    finite = int(good.sum())
    if 2 * finite < len(good):
        raise PreviewError(f"the VAE gives finite numbers for {finite} of {len(good)} lessons in {teacher.dtype}")
    if finite < len(good):
        log.warning(
            "the preview decoder learns from %d of %d lessons: the VAE overflows in the others", finite, len(good)
        )
    network = PreviewDecoder(teacher.channels)
    _initialise(network, generator)
    _train(network.to(device), latents[good], targets[good], generator, updates)
    return network.cpu().eval().requires_grad_(False)


class _Teacher:
    """The VAE, a few pictures at a time. Pictures are float32 [n, 3, height, width] in 0…1, latents as denoised."""

    def __init__(self, vae: Any, device: torch.device) -> None:
        self._vae, self._device = vae, device
        self._factor = float(vae.config.scaling_factor)
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0)
        self.dtype = next(vae.parameters()).dtype
        self.channels = vae.config.latent_channels
        self.scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self.side = max(SIDES[0], min(SIDES[1], vae.config.sample_size // self.scale))
        self.can_encode = getattr(vae, "encoder", None) is not None

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures → their most probable latents."""
        latents = self._in_pieces(lambda piece: self._vae.encode(piece).latent_dist.mode(), pictures * 2 - 1)
        return (latents - self._shift) * self._factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → pictures in full size."""
        pictures = self._in_pieces(lambda piece: self._vae.decode(piece).sample, latents / self._factor + self._shift)
        return (pictures / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def _in_pieces(self, call: Callable[[Tensor], Tensor], everything: Tensor) -> Tensor:
        pieces = torch.split(everything.to(self._device, self.dtype), AT_ONCE)
        return torch.cat([call(piece.contiguous(memory_format=torch.channels_last)).float() for piece in pieces])


def _lessons(teacher: _Teacher, generator: Generator, count: int) -> tuple[Tensor, Tensor]:
    """Latents [n, channels, h, w], and the decoder's pictures of them reduced to [n, 3, h, w]."""
    latents: list[Tensor] = []
    targets: list[Tensor] = []

    def decode(lesson: Tensor) -> Tensor:
        pictures = teacher.decode(lesson)
        latents.append(lesson)
        targets.append(functional.avg_pool2d(pictures, teacher.scale))
        return pictures

    if teacher.can_encode:
        walking = _drawn(count, teacher.side * teacher.scale, lambda: _vivid(count, generator), generator).clamp(0, 1)
        for _ in range(WALK):
            walking = decode(teacher.encode(walking))
    else:
        log.warning("the VAE's files hold no encoder: its preview decoder learns from random latents and may miss hues")
        for _ in range(WALK):
            colours = lambda: torch.randn(count, teacher.channels, 1, 1, generator=generator)  # noqa: E731
            decode(_drawn(count, teacher.side, colours, generator))
    decode(_bent(latents[-1], generator))
    return torch.cat(latents), torch.cat(targets)


def _drawn(count: int, side: int, colours: Callable[[], Tensor], generator: Generator) -> Tensor:
    """Flat and blended fills, some of them grained, in shapes over shapes, float32 [count, channels, side, side].

    `colours` gives one for each picture, [count, channels, 1, 1].
    """
    dice = _Dice(count, generator)
    line = torch.linspace(-1, 1, side)
    y, x = line[:, None], line[None, :]

    def fill() -> Tensor:
        angle = dice.between(0, 2 * math.pi)
        blend = torch.sigmoid(3 * (x * angle.cos() + y * angle.sin())) * dice.sometimes(0.2)
        grain = _grain(count, side, generator) * dice.between(0, 0.25) * dice.sometimes(0.15)
        first, second = colours(), colours()
        return first + blend * (second - first) + grain

    picture = fill()
    for layer in range(LAYERS):
        inside = _shapes(x, y, 2 / side, dice) * dice.sometimes(1 / (1 + layer / 2))
        picture = picture + inside * (fill() - picture)
    return picture


def _shapes(x: Tensor, y: Tensor, pixel: float, dice: "_Dice") -> Tensor:
    """How much of each pixel a shape covers: ellipses, rounded boxes, diamonds, flowers, rings and half-planes."""
    angle, radius = dice.between(0, 2 * math.pi), dice.between(0.08, 0.8)
    x, y = x - dice.between(-0.8, 0.8), y - dice.between(-0.8, 0.8)
    across = x * angle.cos() + y * angle.sin()
    along = (y * angle.cos() - x * angle.sin()) / dice.between(0.4, 1)
    power = 2 ** dice.between(0, 3)
    distance = (across.abs() ** power + along.abs() ** power + 1e-9) ** (1 / power) - radius
    lobes = dice.between(2, 7).floor()
    distance = distance - dice.sometimes(0.4) * 0.35 * radius * (torch.atan2(along, across) * lobes).cos()
    distance = torch.where(dice.sometimes(0.2) > 0, (distance + radius / 4).abs() - radius / 4, distance)
    distance = torch.where(dice.sometimes(0.1) > 0, across, distance)
    softness = pixel * 4 ** (dice.between(0, 2.5) * dice.sometimes(0.2))
    return torch.sigmoid(-2 * distance / softness)


def _grain(count: int, side: int, generator: Generator) -> Tensor:
    """Noise of several sizes of grain, each of its own strength, float32 [count, 1, side, side]."""
    dice = _Dice(count, generator)
    grain = torch.zeros(count, 1, side, side)
    for cells in (2**power for power in range(1, side.bit_length())):
        noise = torch.randn(count, 1, cells, cells, generator=generator)
        grain = grain + dice.between(0, 1) ** 3 * functional.interpolate(noise, (side, side), mode="bilinear")
    return grain


def _vivid(count: int, generator: Generator) -> Tensor:
    """Colours of every hue, more of them strong and light than not, and some greys, [count, 3, 1, 1] in 0…1."""
    dice = _Dice(count, generator)
    hue, value = dice.between(0, 6), dice.between(0, 1) ** 0.5
    saturation = dice.between(0, 1) ** 0.5 * dice.sometimes(0.8)
    # Red, green and blue from hue, saturation and value: en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    turned = (torch.tensor([5.0, 3.0, 1.0])[:, None, None] + hue) % 6
    return value - value * saturation * torch.minimum(turned, 4 - turned).clamp(0, 1)


def _bent(latents: Tensor, generator: Generator) -> Tensor:
    """Latents as a denoiser estimates them on its way."""
    dice = _Dice(len(latents), generator, latents.device)
    blurred = functional.avg_pool2d(functional.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    bent = torch.lerp(latents, blurred, dice.between(0, 1) * dice.sometimes(0.5))
    others = bent[torch.randperm(len(bent), generator=generator).to(bent.device)]
    bent = torch.lerp(bent, others, dice.between(0, 0.5) * dice.sometimes(0.4))
    bent = bent * (1 + dice.between(-0.4, 0.15) * dice.sometimes(0.5))
    noise = torch.randn(bent.shape, generator=generator).to(bent.device)
    return bent + noise * dice.between(0, 0.5) ** 1.5


class _Dice:
    """One throw for each of `count` pictures, float32 [count, 1, 1, 1]; on the CPU, so that devices draw alike."""

    def __init__(self, count: int, generator: Generator, device: torch.device | None = None) -> None:
        self._count, self._generator, self._device = count, generator, device

    def between(self, low: float, high: float) -> Tensor:
        """Any number."""
        return low + (high - low) * torch.rand(self._count, 1, 1, 1, generator=self._generator).to(self._device)

    def sometimes(self, probability: float) -> Tensor:
        """1 or 0."""
        return (self.between(0, 1) < probability).float()


def _initialise(network: nn.Module, generator: Generator) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _train(network: PreviewDecoder, latents: Tensor, targets: Tensor, generator: Generator, updates: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=updates)
    weights = _weights(targets)
    for _ in range(updates):
        some = torch.randint(len(latents), (BATCH,), generator=generator).to(latents.device)
        errors = functional.smooth_l1_loss(network.colours(latents[some]), targets[some], beta=NEAR, reduction="none")
        loss = (weights[some] * errors).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), STEEPEST)
        optimizer.step()
        pace.step()


def _weights(targets: Tensor) -> Tensor:
    """How much each place of a picture counts, [n, 1, h, w]: more, the less it is like most of the picture."""
    usual = targets.flatten(2).median(dim=2).values[:, :, None, None]
    return 1 + RARE * (targets - usual).abs().amax(dim=1, keepdim=True)
