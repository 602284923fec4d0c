"""Every key of the screens in tables, one module per part of the screen."""
