"""Methods that bring offline knowledge into a backbone, one per folder.

A folder's `config.py` registers its methods, and is imported when a config is read; its
`commands.py`, if it has one, adds commands to `tfctr`.
"""
