"""What label maps have in common."""

IGNORE_INDEX = 255
"""Label of pixels that have no class and do not count."""
