"""What a panel is, how it is drawn, and the card around it."""
