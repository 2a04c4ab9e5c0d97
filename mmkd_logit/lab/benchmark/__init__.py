"""Speed and accuracy on this machine."""
