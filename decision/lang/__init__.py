"""The rule language: text to typed, checked policies, and the reference interpreter of their conditions."""
