"""A small transformer that predicts each next character of a text."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """x + attention(x), then x + two layers of x, each after a normalisation. Each position sees those before it."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.from_heads = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        n, context, width = x.shape
        qkv = self.to_qkv(self.before_attention(x))
        q, k, v = qkv.view(n, context, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.from_heads(seen.transpose(1, 2).reshape(n, context, width))
        return x + self.layers(self.before_layers(x))


class CharTransformer(nn.Module):
    """Tokens (n, context) to scores (n, context, characters)."""

    def __init__(self, characters, context, layers, width, heads):
        super().__init__()
        self.characters, self.positions = nn.Embedding(characters, width), nn.Embedding(context, width)
        for table in (self.characters, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, characters))

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1])
        return self.last(self.blocks(self.characters(tokens) + self.positions(places)))


def build(data_spec, layers=4, width=128, heads=4):
    (context,) = data_spec.input_shape
    return CharTransformer(data_spec.classes, context, layers, width, heads)
