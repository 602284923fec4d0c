"""What stands behind the setup form: its fields, the configuration they make, steps, model files, folders."""
