"""The text encoder computes what transformers' CLIP computes."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from predictor.engine.clip import TextEncoder

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
    "projection_dim": 16,
}


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("end", [2, 98])
@pytest.mark.parametrize("projection", [False, True])
def test_it_computes_what_transformers_computes(act: str, end: int, projection: bool) -> None:
    torch.manual_seed(0)
    config = {**SMALL, "hidden_act": act, "eos_token_id": end}
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    theirs = kind(CLIPTextConfig(**config)).eval()
    ours = TextEncoder(config, projection).eval()
    ours.load_state_dict({name.removeprefix("text_model."): tensor for name, tensor in theirs.state_dict().items()})
    # 98 ends the text; padding repeats it, as Stable Diffusion 1.x pads.
    ids = torch.tensor(
        [[97, 5, 6, 7, 98, 98, 98, 98, 98, 98, 98, 98], [97, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98]]
    )
    with torch.inference_mode():
        expected = theirs(ids, output_hidden_states=True)
        last, before, pooled = ours(ids)
    torch.testing.assert_close(last, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(before, expected.hidden_states[-2], atol=1e-5, rtol=1e-4)
    if projection:
        torch.testing.assert_close(pooled, expected.text_embeds, atol=1e-5, rtol=1e-4)
    else:
        assert pooled is None


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_act: got 'relu'; supported: quick_gelu, gelu"):
        TextEncoder({**SMALL, "hidden_act": "relu"}, projection=False)
