"""Core-sets: what they cover, how fast and how frugal k_center is, and what it does for anomaly detection."""
