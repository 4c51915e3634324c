"""The folder that a run leaves behind: its files, what stands in them, and how they are read back. Loads no torch.

.. include:: README.md
"""
