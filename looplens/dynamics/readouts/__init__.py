"""What the model would say inside the loop, and whether it would still change its mind."""
