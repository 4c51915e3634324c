"""The command line: the only place that knows all parts.

.. include:: README.md
"""
