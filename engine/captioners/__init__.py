"""Captions by machine: models that describe pictures, one module a class, and what becomes of their answers.

An answer is never a caption by itself. It is kept beside the picture (:mod:`engine.captioners.drafts`) until somebody
takes it, whole or in part. torch, transformers and onnxruntime are imported when a model is loaded, not before.
"""
