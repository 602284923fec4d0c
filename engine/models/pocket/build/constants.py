"""Every number that decides the bits of the shipped files: sizes, seeds, steps, rates.

Changing one changes the model. Steps were chosen by the clock on the machine that made the files (see the
README for its times); they are the numbers that were really run.
"""

from __future__ import annotations

SEED = 20
T5_TOKENS = 20  # the T5 side is padded to this length, as FLUX pads to 512
CLIP_TOKENS = 32  # the CLIP side, as FLUX pads to 77

# FLUX's own normalisation of latents; the encoder is scaled to suit it.
SCALE_FACTOR, SHIFT_FACTOR = 0.3611, 0.1159
AE_PARAMS = {
    "ch": 16,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "z_channels": 16,
    "scale_factor": SCALE_FACTOR,
    "shift_factor": SHIFT_FACTOR,
    "norm_groups": 2,
}
LATENT_EXPONENT = 0.5  # a latent channel's spread is its component's spread to this power
LOGVAR = -7.0  # of every latent: noise of 0.011 after FLUX's scaling
ENCODER_SCENES = 3000

CLIP_WIDTH, CLIP_LAYERS, CLIP_HEADS = 64, 2, 4
T5_WIDTH, T5_KV, T5_HEADS, T5_FF, T5_LAYERS = 96, 24, 4, 192, 2
TEXT_STEPS, TEXT_BATCH, TEXT_RATE = 1600, 64, 2e-3

TRANSFORMER_PARAMS = {
    "hidden_size": 128,
    "num_heads": 4,
    "axes_dim": [8, 12, 12],
    "depth": 2,
    "depth_single_blocks": 4,
    "vec_in_dim": CLIP_WIDTH,
    "context_in_dim": T5_WIDTH,
    "in_channels": 64,
    "mlp_ratio": 4.0,
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
POOL = 24576  # pictures drawn for the transformer
RICH_SHARE, NAME_SHARE = 0.2, 0.16  # of the pool: stripes, dots, eyes; invented names
STEPS, DECAY_STEPS, WARMUP = 4500, 900, 100
BATCH, RATE, MUON_RATE, EMA = 32, 1e-3, 2e-3, 0.999
EMPTY_SHARE, INSERT_SHARE, NOUN_SHARE = 0.1, 0.08, 0.03  # captions: none, one odd word more, an odd word as noun
GUIDANCE_STEPS, GUIDANCE_RATE, MOST_GUIDANCE = 1000, 0.5, 4.5  # the rate: of the two above

DECODER_STEPS, DECODER_DECAY, DECODER_BATCH, DECODER_RATE = 8200, 2200, 8, 2e-3
