"""A character transformer: 4 layers of 128 with 4 heads, normalised before each part (as in GPT-2), without dropout."""

import torch
from torch import nn

WIDTH, LAYERS, HEADS = 128, 4, 4


class Transformer(nn.Module):
    def __init__(self, context, characters):
        super().__init__()
        self.token = nn.Embedding(characters, WIDTH)
        self.position = nn.Parameter(0.02 * torch.randn(context, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, tokens):
        x = self.token(tokens) + self.position
        return self.head(self.norm(self.layers(x, mask=self.mask, is_causal=True)))


def loss(scores, following):
    return nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())


def build(data_spec):
    [context] = data_spec.input_shape
    return Transformer(context, data_spec.classes), loss
