"""NVFlare 2.9 as the carrier of our messages; no other package imports it."""
