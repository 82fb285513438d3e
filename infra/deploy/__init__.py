"""Puts the stacks and the app onto AWS (`make deploy STAGE=...`) and, by the same steps, onto the local emulator."""
