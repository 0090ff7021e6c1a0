"""Where clients live: every engine answers the same orders with the same bits."""
