"""A model folder → a bundle: exported, compiled and packed ahead of time."""
