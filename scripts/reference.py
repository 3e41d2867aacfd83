"""A Llama folder and rows -> released LADM scores, by plain eager attention: what `toy_scores.json` is made with.

Independent of the package, and of transformers: it imports neither. The decoder is written out below, the
softmax of every scored span is taken over all earlier keys, and nothing is shared between spans. Slow on purpose.
Every default except the span is the released code's.

    python scripts/reference.py runs/toy/rows --model runs/toy/model --span-tokens 16 --output toy_scores.json

Output: one JSON object a line: index, chunked_index, score, meta; --layers adds cds_per_layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import datasets
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm


class Llama:
    """The layers of a Llama as published, in float32: enough to reach every layer's q and k."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        merged = {name.removeprefix("model."): weight.float() for file in files for name, weight in file.items()}
        self.weights = merged
        self.heads = self.config["num_attention_heads"]
        self.key_heads = self.config.get("num_key_value_heads", self.heads)
        self.head_size = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        rope = self.config.get("rope_parameters") or self.config
        if rope.get("rope_type", "default") != "default" or self.config.get("rope_scaling"):
            raise click.ClickException("only the plain rotary embedding is implemented here")
        self.rope_base = rope.get("rope_theta", 10000.0)

    def norm(self, x: Tensor, name: str) -> Tensor:
        variance = x.pow(2).mean(dim=-1, keepdim=True)
        return self.weights[f"{name}.weight"] * (x * torch.rsqrt(variance + self.config["rms_norm_eps"]))

    def project(self, x: Tensor, name: str) -> Tensor:
        return torch.nn.functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def rotate(self, x: Tensor) -> Tensor:
        """Turn each pair (x_a, x_{a + D/2}) of a (heads, T, D) tensor by position times frequency."""
        half = self.head_size // 2
        exponent = torch.arange(half, dtype=torch.float32) / half
        angle = torch.arange(x.shape[1], dtype=torch.float32)[:, None] / self.rope_base**exponent
        first, second = x[..., :half], x[..., half:]
        return torch.cat(
            [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1
        )

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(len(x), heads, self.head_size).transpose(0, 1)

    def layers(self, ids: list[int]) -> Any:
        """Yield (q, k), each (query heads, T, D) after the rotation, layer by layer."""
        x = self.weights["embed_tokens.weight"][torch.tensor(ids)]
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        for layer in range(self.config["num_hidden_layers"]):
            at = f"layers.{layer}"
            y = self.norm(x, f"{at}.input_layernorm")
            q = self.rotate(self.split(self.project(y, f"{at}.self_attn.q_proj"), self.heads))
            k = self.rotate(self.split(self.project(y, f"{at}.self_attn.k_proj"), self.key_heads))
            v = self.split(self.project(y, f"{at}.self_attn.v_proj"), self.key_heads)
            k, v = (z.repeat_interleave(self.heads // self.key_heads, dim=0) for z in (k, v))
            yield q, k
            if layer == self.config["num_hidden_layers"] - 1:
                return
            attended = []
            for h in range(self.heads):
                logits = (q[h] @ k[h].T) / self.head_size**0.5
                attended.append(logits.masked_fill(mask, float("-inf")).softmax(dim=-1) @ v[h])
            x = x + self.project(torch.cat(attended, dim=-1), f"{at}.self_attn.o_proj")
            y = self.norm(x, f"{at}.post_attention_layernorm")
            gated = torch.nn.functional.silu(self.project(y, f"{at}.mlp.gate_proj")) * self.project(
                y, f"{at}.mlp.up_proj"
            )
            x = x + self.project(gated, f"{at}.mlp.down_proj")


def released_cds(q: Tensor, k: Tensor, *, span: int, stride_afs: int, stride_cds: int) -> float:
    """The released score of one layer: q and k of shape (heads, T, D)."""
    T = q.shape[1]
    lowest = (1 + 4 * stride_afs) * span
    scores = []
    end = T
    while end - span > lowest:
        start = end - span
        logits = torch.einsum("hqd,hkd->hqk", q[:, start:end], k[:, :start]) / q.shape[-1] ** 0.5
        attention = logits.softmax(dim=-1).sum(dim=1).mean(dim=0)
        focus, distance = [], []
        earlier = start - stride_afs * span
        while earlier >= T % span + span:
            focus.append(attention[earlier : earlier + span].sum())
            distance.append((start - earlier) / T)
            earlier -= stride_afs * span
        pfs = torch.stack(focus)
        scores.append(pfs.std() * (pfs * torch.tensor(distance)).sum() * (start / T))
        end -= stride_cds * span
    return torch.stack(scores).mean().item()


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows")
@click.option("--model", required=True, help="Folder of a Llama with safetensors.")
@click.option("--output", required=True, type=click.Path(dir_okay=False))
@click.option("--span-tokens", type=int, default=128, show_default=True)
@click.option("--d-afs", type=int, default=4, show_default=True)
@click.option("--d-cds", type=int, default=4, show_default=True)
@click.option("--layers", is_flag=True, help="Write cds_per_layer too.")
@torch.inference_mode()
def main(rows: str, model: str, output: str, span_tokens: int, d_afs: int, d_cds: int, layers: bool) -> None:
    llama = Llama(Path(model))
    loaded = datasets.load_from_disk(rows)
    lines = []
    for position, row in enumerate(tqdm(loaded["train"] if isinstance(loaded, dict) else loaded, unit="doc")):
        cds = [
            released_cds(q, k, span=span_tokens, stride_afs=d_afs, stride_cds=d_cds)
            for q, k in llama.layers(row["input_ids"])
        ]
        line = {
            "index": row.get("index", position),
            "chunked_index": row.get("chunked_index"),
            "score": sum(cds) / len(cds),
            "meta": row.get("meta"),
        }
        lines.append(json.dumps(line | ({"cds_per_layer": cds} if layers else {})) + "\n")
    Path(output).write_text("".join(lines))


if __name__ == "__main__":
    main()
