"""CLIP's text encoder in plain torch, so that a cold start need not import transformers.

Parameter names are those of transformers' CLIPTextModel, less its `text_model.` prefix. Source: Radford et al., arXiv
2103.00020, section 2.4: a causal transformer with pre-normalisation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

LEGACY_END = 2  # the end token in configurations that were written before transformers looked at it


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] → the same."""
        q, k, v = (
            proj(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear layers around an activation; OpenAI's models use x·σ(1.702 x), LAION's the exact GELU."""

    def __init__(self, width: int, inner: int, quick: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.quick = quick

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] → the same."""
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else gelu(x))
        return out


class Layer(nn.Module):
    """One transformer block."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.self_attn = Attention(width, config["num_attention_heads"])
        self.mlp = MLP(width, config["intermediate_size"], config.get("hidden_act", "quick_gelu") == "quick_gelu")

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] → the same."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Embeddings(nn.Module):
    """A vector per token, and one per place."""

    def __init__(self, tokens: int, places: int, width: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(tokens, width)
        self.position_embedding = nn.Embedding(places, width)

    def forward(self, ids: Tensor) -> Tensor:
        """[n, tokens] → [n, tokens, width]."""
        out: Tensor = self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]
        return out


class Encoder(nn.Module):
    """The blocks in order."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[n, tokens, width] → after the last block, and before it."""
        before = x
        for layer in self.layers:
            before, x = x, layer(x)
        return x, before


class TextEncoder(nn.Module):
    """CLIPTextModel or, with `projection`, CLIPTextModelWithProjection, from its config.json.

    Raises:
        ValueError: an activation that CLIP does not have.
    """

    def __init__(self, config: Mapping[str, Any], projection: bool) -> None:
        super().__init__()
        if config.get("hidden_act", "quick_gelu") not in ("quick_gelu", "gelu"):
            raise ValueError(f"text encoder hidden_act: got {config['hidden_act']!r}; supported: quick_gelu, gelu")
        width = config["hidden_size"]
        self.length = config.get("max_position_embeddings", 77)
        self.end = config.get("eos_token_id", LEGACY_END)
        self.embeddings = Embeddings(config["vocab_size"], self.length, width)
        self.encoder = Encoder([Layer(config) for _ in range(config["num_hidden_layers"])])
        self.final_layer_norm = nn.LayerNorm(width, config.get("layer_norm_eps", 1e-5))
        self.text_projection = nn.Linear(width, config["projection_dim"], bias=False) if projection else None

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Token ids, int64 [n, tokens] → last layer, normalised; the layer before it, as it is; pooled and projected.

        [n, tokens, width] twice, and [n, projection width] or None.
        """
        x, before = self.encoder(self.embeddings(ids))
        last = self.final_layer_norm(x)
        if self.text_projection is None:
            return last, before, None
        # The first end token sums the text up; it has the largest id wherever the configuration does not name it.
        place = ids.argmax(1) if self.end == LEGACY_END else (ids == self.end).int().argmax(1)
        return last, before, self.text_projection(last[torch.arange(len(ids), device=ids.device), place])
