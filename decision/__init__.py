"""The pure decision engine: rule language, forests, arbitration and explanation.

Nothing in this package does I/O, reads a clock or draws randomness of its own: time and seeds are inputs, so every
result can be replayed to the same bytes.
"""
