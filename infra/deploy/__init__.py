"""Deploy the stacks and the app to AWS (`make deploy STAGE=...`) and, by the same steps, to the local emulator."""
