"""The subcommands: parsing and printing only; what they do is elsewhere."""
