"""What stands behind the wizard: its pages, what was answered, the planner it asks, and what it says of a plan."""
