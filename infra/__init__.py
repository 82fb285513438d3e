"""What stands around the functions (stacks, deploy, local system, bridge); never goes into their package."""
