"""What is around the functions: stacks, deploy, local system, bridge. It never goes into their package."""
