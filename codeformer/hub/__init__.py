"""Published weights: the catalogue, where they lie, how they are downloaded."""
