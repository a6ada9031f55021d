"""The faster group norm is group norm."""

import pytest
import torch
from torch import nn

from predictor.engine.groupnorm import ChannelsLastGroupNorm, use_channels_last_group_norm


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_normalises_like_torch(dtype: torch.dtype, offset: float) -> None:
    torch.manual_seed(0)
    theirs = nn.GroupNorm(8, 32)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = ChannelsLastGroupNorm(8, 32).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x = (torch.randn(3, 32, 12, 20) * 200 + offset).to(dtype).to(memory_format=torch.channels_last)
    got = ours(x)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.float(), theirs(x.float()), atol=2e-2 if dtype == torch.float16 else 2e-4, rtol=2e-3)


def test_other_shapes_and_modules_are_left_to_torch() -> None:
    module = nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4, affine=False))
    use_channels_last_group_norm(module)
    assert [type(child) for child in module] == [ChannelsLastGroupNorm, nn.LayerNorm, nn.GroupNorm]
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(module[0](x), nn.functional.group_norm(x, 2))
