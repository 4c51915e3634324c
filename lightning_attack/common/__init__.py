"""Small things that every floor may use; standard library only."""
