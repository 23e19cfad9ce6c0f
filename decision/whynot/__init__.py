"""Why an offer is not shown, and the smallest change of inputs that would have made it eligible."""
