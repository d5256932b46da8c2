"""One way for every picture and every frame: find, align, restore, upsample, paste."""
