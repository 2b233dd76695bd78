"""One module per command: `add_arguments(parser)`, cheap, and `run(args)`, which imports."""
