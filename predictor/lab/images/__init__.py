"""What the Dockerfile's build stages run: which files an image carries, and proof of which it opens.

Standard library only: the stages have Python and nothing else.
"""
