"""Gives the tiny model weights by which each token depends on all before it.

vLLM's own random weights (``--load-format dummy``) are so small that the answer hardly depends on the prompt.
With them, a test that continues an answer could not fail.

Run with the interpreter of the vLLM environment: ``python weights.py DIRECTORY``.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SEED = 7
SCALE = 1.7
"""Of projections, in units of the usual one over the square root of the inputs."""
HEAD_SCALE = 3.0


def main(directory: Path) -> None:
    """Writes ``model.safetensors`` beside the model's ``config.json``."""
    config = json.loads((directory / "config.json").read_text())
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    generator = torch.Generator().manual_seed(SEED)

    def drawn(outputs: int, inputs: int, scale: float) -> torch.Tensor:
        values = torch.randn(outputs, inputs, generator=generator) * scale / inputs**0.5
        return values.to(torch.bfloat16)

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    weights = {
        "model.embed_tokens.weight": drawn(vocabulary, hidden, hidden**0.5),
        "model.norm.weight": ones,
        "lm_head.weight": drawn(vocabulary, hidden, HEAD_SCALE),
    }
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, (outputs, inputs) in shapes.items():
            weights[f"{prefix}.{name}.weight"] = drawn(outputs, inputs, SCALE)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = ones.clone()
    save_file(weights, str(directory / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
