"""The subcommands. They parse and print only."""
