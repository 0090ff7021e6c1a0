"""A federation over a network: kits, a server that drives rounds, sites that keep their model warm."""
