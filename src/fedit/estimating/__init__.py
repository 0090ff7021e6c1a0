"""What a plan will take, said before anything is trained: parameters, memory, tokens, bytes, hours."""
