"""The vocabulary that the processes share. Pure: no torch, no I/O, no clock, no environment."""
