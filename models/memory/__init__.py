"""Where weights lie, and how much memory they take, measured and predicted."""
