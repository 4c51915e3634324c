"""Pictures of a run: label maps in colours, strips of panels, captions. Knows tensors and Pillow, and no run."""
