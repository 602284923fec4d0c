"""Full-screen views, each with its style sheet."""
