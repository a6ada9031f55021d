"""Group normalisation that leaves channels_last as it is.

torch's CUDA kernel wants channels first, so between two channels_last convolutions it costs two copies of the largest
tensors there are. Here two reductions and one fused multiply-add read the tensor as it lies.
"""

import torch
from torch import Tensor, nn


class ChannelsLastGroupNorm(nn.GroupNorm):
    """nn.GroupNorm, faster for channels_last tensors on CUDA; statistics are float32 whatever the input is.

    Source: Wu & He, arXiv 1803.08494, eq. 1 and 7.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [n, channels, h, w]; anything else goes to torch's own kernel."""
        if x.dim() != 4:
            return super().forward(x)
        n, channels, height, width = x.shape
        per_channel = x.permute(0, 2, 3, 1).flatten(1, 2)  # a view, [n, h·w, channels]
        mean = per_channel.mean(1, dtype=torch.float32).view(n, self.num_groups, -1).mean(2, keepdim=True)
        # The norm squares in float32 without writing the squares down; half precision would overflow on them.
        norm = torch.linalg.vector_norm(per_channel, dim=1, dtype=torch.float32).view(n, self.num_groups, -1)
        count = channels // self.num_groups * height * width
        variance = norm.square().sum(2, keepdim=True) / count - mean.square()
        scale = self.weight.float().view(1, self.num_groups, -1) * torch.rsqrt(variance.clamp_min(0) + self.eps)
        shift = self.bias.float().view(1, self.num_groups, -1) - mean * scale
        shape = (n, channels, 1, 1)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))


def use_channels_last_group_norm(module: nn.Module) -> None:
    """Let every nn.GroupNorm inside `module` compute as `ChannelsLastGroupNorm` does, on its own parameters."""
    for child in module.modules():
        if type(child) is nn.GroupNorm and child.affine:
            child.__class__ = ChannelsLastGroupNorm
