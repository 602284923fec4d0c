"""The program that makes the pocket model's files, in stages that can be interrupted and resumed."""
