"""How well do adversarial examples made on one segmentation network fool the others?"""

__version__ = "0.1.0"
