"""Reading what runs leave, and drawing it; knows no model and imports no mm package."""
