"""One small file per `kiln` subcommand."""
