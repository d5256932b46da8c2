"""What can be done to a face: restore, colorize, inpaint."""
