"""Folders of pictures and captions: scanning, decoding, captions, buckets, token counts. Torch-free."""
