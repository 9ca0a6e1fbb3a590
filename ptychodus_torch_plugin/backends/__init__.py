"""Backends: one small door (`protocol`), one list (`registry`), one room per framework."""
