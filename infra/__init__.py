"""What stands around the functions: stacks, deploy, the local system, the bridge. Never goes into a function's package."""
