"""The rule language: text to checked, typed policy."""
