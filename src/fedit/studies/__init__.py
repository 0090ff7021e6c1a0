"""Studies: the base, clients alone, federations and all rows together, run and scored side by side."""
