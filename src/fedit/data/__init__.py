"""From files and hub ids to examples, and from examples to clients."""
