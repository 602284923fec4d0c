"""Content-addressed caches on disk for latents and text embeddings."""
