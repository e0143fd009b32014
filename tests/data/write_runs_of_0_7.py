"""Write a training cache, a full checkpoint, an adapter and configs as version 0.7 wrote them, as small as can be.

Run it in a checkout of that version (tag or commit 8860e5f), with the environment of today:

    PYTHONPATH=.:tests python write_runs_of_0_7.py /tmp/runs_of_0_7
    tar --sort=name --owner=0 --group=0 --numeric-owner -C /tmp -c runs_of_0_7 | xz -9e > runs_of_0_7.tar.xz

Footage is drawn (two clips of 0.7's tests). Every network is smaller than the presets, so that all of it fits in
200 kB. The folder's name must stay: configs hold absolute paths, and the tests replace `/tmp/runs_of_0_7` in them.
"""

import os
import shutil
import sys
from pathlib import Path

import models.text_encoder as text_encoder
import torch
from clips import CLIPS, write_clips
from diffusers import AutoencoderKLMagvit
from models.easyanimate import TINY, EasyAnimate
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

import run_pipeline

CONFIGS = Path(run_pipeline.__file__).parent / "configs"
WIDTH = 16
VAE = {
    "latent_channels": 4, "block_out_channels": (2, 2, 2, 4), "layers_per_block": 1, "norm_num_groups": 2,
    "spatial_group_norm": True,
}  # fmt: skip
TRANSFORMER = TINY | {
    "num_attention_heads": 1, "attention_head_dim": 16, "num_layers": 1, "mmdit_layers": 1, "time_embed_dim": 8,
    "text_embed_dim": WIDTH, "in_channels": 4, "out_channels": 4,
}  # fmt: skip
SHORT = ("--runner", "inline", "train.steps=2", "watch.log_every=1", "watch.checkpoint_every=2", "watch.sample_every=0",
         "buckets.sizes_px=[32]", "buckets.frames=[5]", "model.text_tokens=8")  # fmt: skip


def coarse(model: torch.nn.Module) -> torch.nn.Module:
    """Round weights to what bfloat16 holds, which compresses by half."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    return model


def write_text_encoder(folder: Path) -> None:
    """Write 0.7's tiny text encoder, narrower; its tokenizer as it is."""
    text_encoder.build_tiny(folder, 0)
    config = Qwen2VLConfig.from_pretrained(folder / "text_encoder")
    config.text_config.update({
        "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 1,
        "num_key_value_heads": 1,
    })  # fmt: skip
    config.vision_config.update({"hidden_size": WIDTH, "patch_size": 2, "embed_dim": 8, "num_heads": 1, "mlp_ratio": 1})
    model = Qwen2VLForConditionalGeneration(config).float()
    text_encoder._draw(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "visual" in name or "lm_head" in name:  # not read for texts
                weight.zero_()
    shutil.rmtree(folder / "text_encoder")
    coarse(model).save_pretrained(folder / "text_encoder")


def main() -> None:
    """Write everything below the folder that is named."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    os.chdir(out)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    write_clips(Path("clips"), dict(list(CLIPS.items())[:2]), num_frames=9)
    coarse(AutoencoderKLMagvit(**VAE)).save_pretrained("vae")
    coarse(EasyAnimate().build(TRANSFORMER)).save_pretrained("transformer")
    write_text_encoder(Path("text"))
    train = ["train", str(CONFIGS / "train_tiny.yaml"), "--data", "clips/metadata.json", "--output", "video", *SHORT,
             "model.vae=vae", "model.transformer=transformer", "model.text_encoder=text"]  # fmt: skip
    assert run_pipeline.main(train) == 0
    lora = ["train", str(CONFIGS / "train_lora_tiny.yaml"), "--data", "clips/metadata.json", "--output", "adapter",
            *SHORT, "model.base=video/model", "lora.rank=2"]  # fmt: skip
    assert run_pipeline.main(lora) == 0
    for left in ("first_batch", "tensorboard", ".lock", "cache/.lock"):  # nobody reads them again
        for run in (Path("video"), Path("adapter")):
            shutil.rmtree(run / left) if (run / left).is_dir() else (run / left).unlink()


if __name__ == "__main__":
    main()
