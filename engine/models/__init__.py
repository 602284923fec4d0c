"""FLUX.1 and its companions: headers, detection, the transformer, autoencoder, text encoders, tokenizers."""
