"""The pocket model: a small trained FLUX of the repository's own, with its grammar, checker and build."""
