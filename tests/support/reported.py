"""What tests have to say beside their verdict; printed at the end of the run, whichever process ran them."""

from __future__ import annotations

REPORTED = "reported"
"""Name of the property whose value, a list of lines, is printed."""
