"""The command line: one file a verb; each imports its part inside the command."""
