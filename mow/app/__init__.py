"""What needs the [train] extra: the command line, runs in a folder, reports, data sets, the paper's tables, demos."""
