"""The demo model: drawings, captions, training, checking and the model card."""
